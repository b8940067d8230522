"""For how long a worker has had work of each model and kind: shards that it holds at the same time count once."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = tuple[str, str]  # model and kind


class Stopwatch:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Counter[Work] = Counter()
        self._since: dict[Work, float] = {}
        self._seconds: defaultdict[Work, float] = defaultdict(float)

    @contextmanager
    def hold(self, work: Work) -> Iterator[None]:
        """The time goes on while anybody holds."""
        with self._lock:
            self._count(work)
            self._held[work] += 1
        try:
            yield
        finally:
            with self._lock:
                self._count(work)
                self._held[work] -= 1

    def take(self, work: Work) -> float:
        """The seconds since they were taken last."""
        with self._lock:
            self._count(work)
            return self._seconds.pop(work, 0.0)

    def _count(self, work: Work) -> None:
        now = self._clock()
        if self._held[work]:
            self._seconds[work] += now - self._since[work]
        self._since[work] = now
