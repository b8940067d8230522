"""Errors of the local stack.

LocalError              what, where, and the next step
├── ServerError        Postgres, Valkey or S3 did not start or did not answer
├── StackError         the stack did not become ready, or one of its processes keeps dying
└── StackBusyError           another `janus up` or `janus down` works on the same folder
"""

from __future__ import annotations

from pathlib import Path


class LocalError(Exception):
    """Base of this package's errors."""


class ServerError(LocalError):
    """A local server did not start or did not answer in time."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        self.name, self.reason, self.log = name, reason, log
        super().__init__(f"{name} {reason}. Its log is {log}; the end of it:\n{last_lines(log)}")


class StackError(LocalError):
    """The local stack did not become ready."""


class StackBusyError(LocalError):
    """Another process holds the stack's lock."""


def last_lines(log: Path, num_lines: int = 12) -> str:
    """The end of a log file, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  {line}" for line in lines[-num_lines:]) or "  (the log is empty)"
