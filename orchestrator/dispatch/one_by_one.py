"""One bad thing must not stop the rest: a duty works on each by itself, and less often on those that fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from orchestrator.dispatch import metrics
from orchestrator.telemetry import bound, get_logger

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 60.0

T = TypeVar("T", bound=Hashable)


class OneByOne:
    """Remembers in this process what failed, how often, and when to try again.

    Args:
        noun: what things are, `job` or `shard`; log lines about one carry it.
    """

    def __init__(self, duty: str, noun: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._duty = duty
        self._noun = noun
        self._clock = clock
        self._failed: dict[Hashable, tuple[int, float]] = {}

    @property
    def held(self) -> list[Hashable]:
        """What waits for its next try, so that whoever lists some of many can leave it out."""
        return [thing for thing in self._failed if not self._is_due(thing)]

    def run(
        self,
        things: Iterable[T],
        work: Callable[[T], bool],
        on_error: Callable[[T, int, Exception], None],
        *,
        at_most: int | None = None,
    ) -> int:
        """Work on each thing that is not waiting for its next try; how many were done.

        Args:
            on_error: called with the thing, how often it has failed, and the error; it may raise too.
            at_most: end after so many were done, to look afresh whose turn it is.
        """
        every = list(things)
        for gone in self._failed.keys() - set(every):
            if self._clock() > self._failed[gone][1] + MAX_DELAY_SECONDS:  # not only left out while it was held
                del self._failed[gone]
        done = 0
        for thing in every:
            if self._is_due(thing):
                with bound(**{self._noun: thing}):
                    done += self._one(thing, work, on_error)
            if done == at_most:
                break
        return done

    def _is_due(self, thing: Hashable) -> bool:
        return self._clock() >= self._failed.get(thing, (0, 0.0))[1]

    def _one(self, thing: T, work: Callable[[T], bool], on_error: Callable[[T, int, Exception], None]) -> bool:
        try:
            done = work(thing)
        except Exception as error:
            tries = self._failed.get(thing, (0, 0.0))[0] + 1
            delay = min(FIRST_DELAY_SECONDS * 2 ** (tries - 1), MAX_DELAY_SECONDS)
            self._failed[thing] = tries, self._clock() + delay
            metrics.FAILURES.labels(self._duty).inc()
            log = get_logger(tries=tries)
            log.warning("failed_on_one", error=f"{type(error).__name__}: {error}"[:500])
            try:
                on_error(thing, tries, error)
            except Exception as second:
                log.warning("could_not_note_it", error=f"{type(second).__name__}: {second}"[:500])
            return False
        self._failed.pop(thing, None)
        return done
