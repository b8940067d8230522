"""What the stack runs: the same commands as in docker-compose.yml, which a test compares."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


def _module(*words: str) -> tuple[str, ...]:
    return ("python", "-m", *words)


@dataclass(frozen=True)
class Commands:
    """Each process of the system, as `python -m …`."""

    migrate: Sequence[str] = _module("orchestrator.admin", "migrate")
    ensure_key: Sequence[str] = _module(
        "orchestrator.admin", "ensure-key", "--team", "local", "--scopes", "admin,jobs:read,jobs:write"
    )
    api: Sequence[str] = _module("orchestrator.api")
    dispatcher: Sequence[str] = _module("orchestrator.dispatch")
    worker: Sequence[str] = _module("workers")


def with_this_python(command: Sequence[str]) -> list[str]:
    """The command with the interpreter that runs now in place of `python`."""
    return [sys.executable if word == "python" else word for word in command]
