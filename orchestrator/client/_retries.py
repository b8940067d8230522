"""When to try again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 8.0

T = TypeVar("T")


class TryAgain(Exception):
    """This answer is worth another request; `after_seconds` is what the server asked for."""

    def __init__(self, cause: Exception, after_seconds: float | None = None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.after_seconds = after_seconds


def with_retries(attempt: Callable[[], T], *, max_retries: int, sleep: Callable[[float], None] = time.sleep) -> T:
    """Call until it does not raise TryAgain; the last cause is raised once retries are used up."""
    for retry in range(max_retries + 1):
        try:
            return attempt()
        except TryAgain as again:
            if retry == max_retries:
                raise again.cause from None
            backoff = min(FIRST_DELAY_SECONDS * 2**retry, MAX_DELAY_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311
            sleep(backoff if again.after_seconds is None else again.after_seconds)
    raise AssertionError("unreachable")


def retry_after_seconds(response: httpx.Response) -> float | None:
    """The server's Retry-After in seconds, at most a minute."""
    value = response.headers.get("retry-after", "")
    return min(float(value), 60.0) if value.isdigit() else None
