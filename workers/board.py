"""What is being computed in this process, and what was lately: equal requests of all its shards are computed once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MAX_KEPT = 4096  # answers; a caption is a kilobyte or two, an image its digest


@dataclass(frozen=True)
class Answered:
    """A result: as its line says it, and whose job's objects its images are."""

    identity: UUID
    job_id: str
    record: dict[str, Any]


class Board:
    """Any thread may ask.

    Args:
        seconds: how long an answer is kept: as long as an attempt lasts that looked for known results before it.
    """

    def __init__(self, *, seconds: float, max_kept: int = MAX_KEPT) -> None:
        self._seconds, self._max_kept = seconds, max_kept
        self._lock = threading.Lock()
        self._computing: dict[UUID, Future[Answered | None] | None] = {}  # None while nobody waits for it
        self._kept: OrderedDict[UUID, tuple[float, Answered]] = OrderedDict()

    def take(self, identity: UUID) -> Future[Answered | None] | None:
        """None: it is the caller's to compute, and to settle. Else its answer; None in it where it came to nothing."""
        with self._lock:
            kept = self._kept.get(identity)
            if kept is not None and kept[0] > time.monotonic() - self._seconds:
                future: Future[Answered | None] = Future()
                future.set_result(kept[1])
                return future
            if identity not in self._computing:
                self._computing[identity] = None
                return None
            waiting = self._computing[identity] = self._computing[identity] or Future()
            return waiting

    def settle(self, identity: UUID, answered: Answered | None) -> None:
        """Tell those who wait; of None one of them may make something."""
        with self._lock:
            waited_for = self._computing.pop(identity)
            if answered is not None:
                self._kept[identity] = time.monotonic(), answered
                self._kept.move_to_end(identity)
                if len(self._kept) > self._max_kept:
                    self._kept.popitem(last=False)
        if waited_for is not None:
            waited_for.set_result(answered)

    def forget(self, identity: UUID) -> None:
        """It is not there any more."""
        with self._lock:
            self._kept.pop(identity, None)
