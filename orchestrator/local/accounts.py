"""Postgres refuses to run as root. Started by root, it runs as `nobody`, without any folder being opened for others.

The data folder belongs to `nobody`, and Postgres finds it as its working directory (`/proc/self/cwd`), which needs no
way through the folders above it, such as `/root`. Programs cannot be run like that: where `nobody` has no way to them
they are copied, once, to a folder of root's that has one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

from orchestrator.local.children import Account
from orchestrator.local.errors import LocalError

COPIES = Path("/var/lib/janus-batch")


def find_unprivileged_account() -> Account | None:
    """`nobody` when we are root; None when we can run Postgres as ourselves."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def folder_argument(folder: Path) -> str:
    """How a process that runs in the folder can name it without a way through the folders above."""
    return "/proc/self/cwd" if Path("/proc/self/cwd").exists() else str(folder)


def give(folder: Path, account: Account) -> None:
    """Let the account own the folder and all in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def reachable(programs: Path, version: str) -> Path:
    """The folder of programs, or a copy of it that every account can run.

    Raises:
        LocalError: there is no place for the copy.
    """
    if all(_lets_through(folder) for folder in (programs, *programs.parents)):
        return programs
    copy = COPIES / f"postgres-{version}"
    if copy.exists():
        return copy
    try:
        COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=COPIES))
        shutil.copytree(programs, draft, symlinks=True, dirs_exist_ok=True)
        draft.chmod(0o755)
        if not copy.exists():
            draft.rename(copy)
    except OSError as error:
        raise LocalError(
            f"Postgres does not run as root, and the account `nobody` has no way to {programs}. Copying it to {copy} "
            f"failed: {error}. Install Janus where every account can read it, or run it as an ordinary user."
        ) from error
    return copy


def _lets_through(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
