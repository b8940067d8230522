"""A check says a sentence when all is well, and raises a Fault with another one when it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class Fault(Exception):
    """What is wrong, and what to do."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    finding: str


def examine(check: str, ask: Callable[[], str]) -> Finding:
    """The outcome of a check; what it did not foresee is a fault too."""
    try:
        return Finding(check, True, ask())
    except Fault as fault:
        return Finding(check, False, str(fault))
    except Exception as error:
        return Finding(check, False, f"the check itself failed: {type(error).__name__}: {error}"[:500])
