"""What a checkpoint folder held when it was locked: janus.lock.json, with size and sha256 of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from janus_core.errors import LockMismatch, NeverLocked

LOCK_NAME = "janus.lock.json"


def read_lock(folder: Path) -> dict[str, Any] | None:
    """The folder's janus.lock.json, or None where it has none."""
    try:
        lock: dict[str, Any] = json.loads((folder / LOCK_NAME).read_text(encoding="utf-8"))
        lock["files"].items()
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LockMismatch(str(folder), [], [LOCK_NAME]) from error
    return lock


def write_lock(folder: Path, origin: dict[str, str] | None = None) -> dict[str, Any]:
    """Record every file of a folder in its janus.lock.json, and `origin`: repo and commit, if it was pulled."""
    files = {
        str(path.relative_to(folder)): {"sha256": _sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK_NAME and ".cache" not in path.relative_to(folder).parts
    }
    lock = {**(origin or {}), "files": files}
    (folder / LOCK_NAME).write_text(json.dumps(lock, indent=1) + "\n", encoding="utf-8")
    return lock


def verify(folder: Path) -> int:
    """Recompute the lock of a folder. Returns the number of files.

    Raises:
        NeverLocked: there is no lock.
        LockMismatch: names every file that is missing or differs.
    """
    lock = read_lock(folder)
    if lock is None:
        raise NeverLocked(
            f"{folder} was never locked: it has no {LOCK_NAME} to compare with. If it is as it should be, lock it now: "
            f"python -m janus_core.registry verify {folder} --lock"
        )
    missing, differing = [], []
    for name, expected in lock["files"].items():
        path = folder / name
        if not path.is_file():
            missing.append(name)
        elif path.stat().st_size != expected["size"] or _sha256(path) != expected["sha256"]:
            differing.append(name)
    if missing or differing:
        raise LockMismatch(str(folder), missing, differing, pulled="repo" in lock)
    return len(lock["files"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
