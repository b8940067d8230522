"""When to try again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from orchestrator.client._errors import ConnectionFailed, ServerError
from orchestrator.client._steps import Pause, Steps

RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 8.0
MAX_RETRY_AFTER_SECONDS = 60.0
FIRST_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 2.0
MAX_SILENCE_SECONDS = 600.0  # of a server, while somebody waits for a job

T = TypeVar("T")


class TryAgain(Exception):
    """This answer is worth another request; `after_seconds` is what the server asked for."""

    def __init__(self, cause: Exception, after_seconds: float | None = None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.after_seconds = after_seconds


def with_retries(attempt: Callable[[], Steps[T]], *, max_retries: int) -> Steps[T]:
    """Try until it does not raise TryAgain; the last cause is raised once retries are used up."""
    for retry in range(max_retries + 1):
        try:
            return (yield from attempt())
        except TryAgain as again:
            if retry == max_retries:
                raise again.cause from None
            backoff = min(FIRST_DELAY_SECONDS * 2**retry, MAX_DELAY_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311
            yield Pause(backoff if again.after_seconds is None else again.after_seconds)
    raise AssertionError("unreachable")


def retry_after_seconds(response: httpx.Response) -> float | None:
    """The server's Retry-After, seconds or a date, in seconds from now, at most a minute."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


class Patience:
    """Bears a server that does not answer, or answers with an error of its own, for so many seconds on end."""

    def __init__(self, max_silence_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_silence_seconds = max_silence_seconds
        self._clock = clock
        self._silent_since: float | None = None

    def ask(self, call: Steps[T]) -> Steps[T | None]:
        """The answer, or None where there is none yet. Raises the last error when it was silent for too long."""
        asked_at = self._clock()
        try:
            answer = yield from call
        except (ConnectionFailed, ServerError) as error:
            if isinstance(error, ServerError) and error.status < 500:
                raise
            self._silent_since = asked_at if self._silent_since is None else self._silent_since
            if self._clock() - self._silent_since >= self._max_silence_seconds:
                raise
            return None
        self._silent_since = None
        return answer


def growing_pauses() -> Iterator[float]:
    """Seconds between looks at a job."""
    pause = FIRST_POLL_SECONDS
    while True:
        yield pause
        pause = min(pause * 1.3, MAX_POLL_SECONDS)
