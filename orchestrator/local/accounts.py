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


def folder_argument(folder: Path, account: Account | None) -> str:
    """How a process that runs as the account, and in the folder, can name it without a way through those above."""
    return "/proc/self/cwd" if account is not None and Path("/proc/self/cwd").exists() else str(folder)


def give(folder: Path, account: Account) -> None:
    """Let the account own the folder and all in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def reachable(package: Path, version: str) -> Path:
    """The folder of a package with programs, or a copy of it that every account can run.

    Raises:
        LocalError: there is no place for the copy.
    """
    if all(_lets_through(folder) for folder in (package, *package.parents)):
        return package
    copy = COPIES / f"{package.name}-{version}"
    if not copy.exists():
        try:
            COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=COPIES))
            for folder in package.parent.glob(f"{package.name}*"):  # the wheel's libraries lie beside it, in NAME.libs
                if folder.name in (package.name, f"{package.name}.libs"):
                    shutil.copytree(folder, draft / folder.name, symlinks=True)
            for path in (draft, *draft.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            draft.rename(copy)
        except OSError as error:
            raise LocalError(
                f"Postgres does not run as root, and the account `nobody` has no way to {package}. "
                f"Copying it to {copy} failed: {error}. "
                "Install Janus where every account can read it, or run it as an ordinary user."
            ) from error
    return copy / package.name


def _lets_through(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)
