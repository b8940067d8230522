"""Small files of the stack's folder: written whole or not at all, and private where they hold a secret."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.local.errors import StackBusyError

MAX_LOG_BYTES = 8 * 2**20


def make_folder(path: Path) -> Path:
    """The folder, made for its owner only when it is new."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step; only its owner can read it."""
    write_private(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty when there is none, or none that can be read as an object."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def log_path(home: Path, name: str) -> Path:
    """The log of a process about to start; once it has grown large, the old one is kept as `.log.1`."""
    path = make_folder(home / "logs") / f"{name}.log"
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


@contextmanager
def locked(path: Path, timeout_seconds: float, what: str) -> Iterator[None]:
    """Hold the file's lock; the kernel frees it when the holder dies.

    Raises:
        StackBusyError: somebody else held it for the whole time.
    """
    deadline = time.monotonic() + timeout_seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackBusyError(
                        f"{what}: another process held {path} for {timeout_seconds:.0f} s. "
                        "Wait until it is done, or look for a second `janus up` or `janus down`."
                    ) from None
            time.sleep(0.05)
        yield
