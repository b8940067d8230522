"""Who is computed next: plain Python, no tensors.

A pool has a fixed number of slots, cache rows of a fixed length. A request takes one of them, or two if it is guided,
and holds them until it is answered; then they are given to those who wait, at once. Of the jobs that wait the one that
has had least of the engine goes next, and of its requests the first in its order, or the oldest. Nobody is overtaken
because a smaller request would fit: so nobody starves, and at most one slot is idle while requests wait.
"""

from __future__ import annotations

from bisect import insort_left, insort_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Schedulable(Protocol):
    """job: whose share of the engine it counts against. order: of the job's requests the lowest goes first.

    num_positions: tokens in each of its slots at most; num_prompt_tokens: at first.
    """

    job: str
    order: int

    @property
    def num_slots(self) -> int: ...
    @property
    def num_positions(self) -> int: ...
    @property
    def num_prompt_tokens(self) -> int: ...


R = TypeVar("R", bound=Schedulable)


@dataclass(frozen=True)
class Limits:
    """num_slots of `capacity` positions each; prefill_tokens at most between two steps; max_rows: of requests that are
    computed together.
    """

    num_slots: int
    capacity: int
    prefill_tokens: int
    max_rows: int


@dataclass
class _Job(Generic[R]):
    """had: tokens that went through the engine for it, beside a start that newcomers are given."""

    had: float
    waiting: list[R] = field(default_factory=list)
    num_running: int = 0


def padded_tokens(rows: Sequence[Schedulable]) -> int:
    """Of prompts that are computed together, each as long as the longest."""
    return len(rows) * max((row.num_prompt_tokens for row in rows), default=0)


def _order(row: Schedulable) -> int:
    return row.order


class Scheduler(Generic[R]):
    """tokens_to_begin: what must go through the model before these rows take their first step."""

    def __init__(self, limits: Limits, tokens_to_begin: Callable[[Sequence[R]], int] = padded_tokens) -> None:
        self.limits = limits
        self._tokens_to_begin = tokens_to_begin
        self.running: list[R] = []
        self._jobs: dict[str, _Job[R]] = {}
        self._apart: deque[list[R]] = deque()  # groups of rows
        self._runs_apart = False
        self._clock = 0.0  # what the job that went last had had

    @property
    def is_idle(self) -> bool:
        return not (self.running or self._jobs or self._apart)

    @property
    def num_free(self) -> int:
        return self.limits.num_slots - sum(row.num_slots for row in self.running)

    def __contains__(self, row: R) -> bool:
        return row in self.running or row in self.waiting()

    def waiting(self) -> list[R]:
        """Everything that was not begun, job by job."""
        apart = [row for group in self._apart for row in group]
        return [*apart, *(row for job in self._jobs.values() for row in job.waiting)]

    def add(self, row: R) -> None:
        job = self._job_of(row)
        if not job.waiting:
            job.had = max(job.had, self._clock)
        insort_right(job.waiting, row, key=_order)

    def admit(self) -> list[R]:
        """The requests to begin now. They run from here on, until they `leave`."""
        if self._apart or (self._runs_apart and self.running):
            return self._admit_apart()
        self._runs_apart = False
        admitted: list[R] = []
        while (row := self.next()) is not None and self._fits(row, beside=admitted):
            job = self._jobs[row.job]
            self._clock = max(self._clock, job.had)
            job.had += row.num_prompt_tokens
            job.num_running += 1
            del job.waiting[0]
            self.running.append(row)
            admitted.append(row)
        return admitted

    def next(self) -> R | None:
        """Whose turn it is to begin."""
        if self._apart:
            return self._apart[0][0]
        waiting = [job for job in self._jobs.values() if job.waiting]
        return min(waiting, key=lambda job: job.had).waiting[0] if waiting else None

    def too_long(self) -> int | None:
        """Positions of the request whose turn it is, if no slot has so many and nothing runs: a new pool is needed."""
        row = self.next()
        if self.running or row is None or self._has_room_for(row):
            return None
        return row.num_positions

    def charge(self, num_steps: int) -> None:
        """Everything that runs took so many steps."""
        for row in self.running:
            self._jobs[row.job].had += num_steps * row.num_slots

    def leave(self, rows: Iterable[R]) -> None:
        """Take out what is answered, or was cancelled while it ran or waited."""
        for row in rows:
            job = self._jobs[row.job]
            if row in self.running:
                self.running.remove(row)
                job.num_running -= 1
            elif group := next((group for group in self._apart if row in group), None):
                group.remove(row)
                job.num_running -= 1
                if not group:
                    self._apart.remove(group)
            else:
                job.waiting.remove(row)
            if not job.waiting and not job.num_running:
                del self._jobs[row.job]

    def requeue(self) -> None:
        """What runs begins again, before what waits."""
        for row in reversed(self.running):
            job = self._jobs[row.job]
            job.num_running -= 1
            insort_left(job.waiting, row, key=_order)
        self.running.clear()

    def set_apart(self) -> None:
        """What runs begins again, one half after the other and before all others: so who breaks a batch is found."""
        middle = (len(self.running) + 1) // 2
        groups = [self.running[:middle], self.running[middle:]]
        self._apart.extendleft(group for group in reversed(groups) if group)
        self.running.clear()

    def _admit_apart(self) -> list[R]:
        """The next group; what of it does not fit any more stays one of its own."""
        if self.running:
            return []
        group = self._apart.popleft()
        while group and self._fits(group[0], beside=self.running):
            self.running.append(group.pop(0))
        if group:
            self._apart.appendleft(group)
        self._runs_apart = bool(self.running)
        return list(self.running)

    def _job_of(self, row: R) -> _Job[R]:
        return self._jobs.setdefault(row.job, _Job(self._clock))

    def _fits(self, row: R, beside: Sequence[R]) -> bool:
        """Whether there are slots for it, and its prompt can be computed together with those of the others."""
        if len(self.running) == self.limits.max_rows or row.num_slots > self.num_free or not self._has_room_for(row):
            return False
        return not beside or self._tokens_to_begin([*beside, row]) <= self.limits.prefill_tokens

    def _has_room_for(self, row: R) -> bool:
        return row.num_positions <= self.limits.capacity and row.num_slots <= self.limits.num_slots
