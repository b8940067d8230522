"""Requests of one kind of step, answered together: each turn some begin, all that run take a step, some leave.

What a row gets does not depend on which others run beside it; so a batch that failed, or a pool that was too large for
the memory, costs time alone: its rows begin again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from traceback import clear_frames
from typing import Generic, TypeVar

import torch

from janus_core.engine.cache import KVCache, bytes_per_token
from janus_core.engine.devices import free_bytes, prefill_tokens
from janus_core.engine.rows import Row
from janus_core.engine.scheduler import Limits, Scheduler
from janus_core.engine.seating import Seat, Seating
from janus_core.models.reader import Reader

_CAPACITY_STEP = 256

R = TypeVar("R", bound=Row)


class Lane(ABC, Generic[R]):
    """max_slots: of the pool, if they fit in half of the free memory; max_rows: requests at a time."""

    def __init__(self, model: Reader, *, max_slots: int, max_rows: int) -> None:
        self._model = model
        self._max_slots = max(2, max_slots)  # a guided image needs two
        self._usual = Limits(0, 0, prefill_tokens(model.device), max_rows)
        self.scheduler: Scheduler[R] = Scheduler(self._usual, self._tokens_to_begin)
        self._seating: Seating[R] = Seating()
        self._cache: KVCache | None = None
        self._left: list[R] = []
        self._most_slots = self._max_slots  # fewer after memory ran out

    @abstractmethod
    def _open(self, cache: KVCache | None) -> None:
        """The pool was made anew, and nobody sits in it; None: it is gone, with everything that belongs to it."""

    @abstractmethod
    def _tokens_to_begin(self, rows: Sequence[R]) -> int:
        """What `_begin` would let through the model for these; prompts that are kept cost nothing."""

    @abstractmethod
    def _begin(self, seats: Sequence[Seat[R]]) -> None:
        """Fill the slots of newcomers."""

    @abstractmethod
    def _advance(self) -> int:
        """Let everybody take a few steps. Returns how many tokens of each slot went through the model."""

    @abstractmethod
    def _move(self, source: int, target: int) -> None:
        """Slot `target` goes on with what `source` held beside its cache."""

    @property
    def is_idle(self) -> bool:
        return self.scheduler.is_idle and not self._left

    @torch.inference_mode()
    def turn(self) -> list[R]:
        """Go a bit further. Returns the rows that left: answered, cancelled, or at fault alone (`error`).

        Raises what a batch raised; its rows then run again in halves, and what left before is returned next time.
        """
        try:
            self._turn()
        except Exception as error:
            self._recover(error)
        left, self._left = self._left, []
        return left

    def forget(self, rows: Sequence[R]) -> None:
        """Give up rows, whether they run, wait or have left."""
        self._leave([row for row in rows if row in self.scheduler])
        self._left = [row for row in self._left if row not in rows]

    def _turn(self) -> None:
        waiting = self.scheduler.waiting()
        self._let_go([row for row in (*self.scheduler.running, *waiting) if row.is_cancelled])
        positions = self.scheduler.too_long()
        if positions is not None:
            self._make_pool(positions)
        if begun := self.scheduler.admit():
            now = time.monotonic()
            for row in begun:
                row.begun_at = now
            self._begin([self._seating.sit(row) for row in begun])
            self._let_go([row for row in self.scheduler.running if row.is_done])
        if self.scheduler.running:
            self._close_ranks()
            self.scheduler.charge(self._advance())
            self._let_go([row for row in self.scheduler.running if row.is_done])
        if self.scheduler.is_idle:
            self._close_pool()
            self._most_slots, self.scheduler.limits = self._max_slots, self._usual

    def _let_go(self, rows: Sequence[R]) -> None:
        self._leave(rows)
        self._left += rows

    def _leave(self, rows: Sequence[R]) -> None:
        self.scheduler.leave(rows)
        self._seating.leave(rows)

    def _close_ranks(self) -> None:
        assert self._cache is not None
        for source, target, row in self._seating.close_ranks():
            self._cache.move(source, target, row.num_positions)
            self._move(source, target)

    # --- The pool ---------------------------------------------------------------------------------------------------

    def _make_pool(self, positions: int) -> None:
        """Slots of at least so many positions; of more if that costs none, so that all that waits fits."""
        model = self._model
        self._close_pool()
        room = free_bytes(model.device) // 2 // bytes_per_token(model.llama.config, model.llama.cache_dtype)
        capacity = positions
        if self._most_slots == self._max_slots:
            longest = max(row.num_positions for row in self.scheduler.waiting())
            capacity = max(positions, min(longest, room // self._most_slots))
        capacity += -capacity % _CAPACITY_STEP
        num_slots = max(2, min(self._most_slots, room // capacity))
        self.scheduler.limits = replace(self.scheduler.limits, num_slots=num_slots, capacity=capacity)
        self._cache = KVCache(model.llama.config, num_slots, capacity, model.llama.cache_dtype, model.device)
        self._open(self._cache)

    def _close_pool(self) -> None:
        self._cache = None
        self._open(None)
        self._seating = Seating()
        self.scheduler.limits = replace(self.scheduler.limits, num_slots=0, capacity=0)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _recover(self, error: Exception) -> None:
        """Take the batch apart, or shrink the pool; what cannot be helped leaves with the error, or is raised."""
        clear_frames(error.__traceback__)  # they hold the cache
        num_slots = self.scheduler.limits.num_slots
        rows = list(self.scheduler.running) or [row for row in [self.scheduler.next()] if row is not None]
        for row in self.scheduler.running:
            row.restart()
        self._close_pool()
        if isinstance(error, torch.OutOfMemoryError) and num_slots > 2:
            self._most_slots = max(2, num_slots // 2)
            fewer = max(1, self.scheduler.limits.prefill_tokens // 2)
            self.scheduler.limits = replace(self.scheduler.limits, prefill_tokens=fewer)
            self.scheduler.requeue()
        elif len(rows) == 1:
            rows[0].error = error
            self._let_go(rows)
            self._most_slots, self.scheduler.limits = self._max_slots, self._usual
        else:
            self.scheduler.set_apart()
            raise error
