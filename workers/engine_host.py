"""The one door to janus_core: one thread owns the engines, and requests of all shards in flight share its batches."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from PIL import Image

from janus_core import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected
from janus_core.errors import JanusCoreError
from orchestrator.telemetry import get_logger

__all__ = [
    "Caption",
    "CaptionRequest",
    "EngineHost",
    "GenerateRequest",
    "GeneratedImage",
    "JanusCoreError",
    "Rejected",
    "Ticket",
    "load",
]

DIED = 70  # exit status of a worker that gave itself up: EX_SOFTWARE of sysexits.h

Request: TypeAlias = CaptionRequest | GenerateRequest
Answer: TypeAlias = Caption | GeneratedImage | Rejected


def load(models: Sequence[str], *, device: str, dtype: str) -> dict[str, Any]:
    """Engines by model name, from `name` (a registry name) or `name=/path/to/checkpoint`."""
    from janus_core import load_engine  # torch comes with it

    engines = {}
    for model in models:
        name, _, path = model.partition("=")
        engines[name] = load_engine(path or name, device=device, dtype=dtype)
    return engines


def breaks_the_device(error: Exception) -> bool:
    """True where every later call in this process would fail too, so that no item is to blame for what comes now."""
    text = str(error)
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in text or "device-side assert" in text


def die(reason: str) -> None:
    """End the process at once: leases run out, the shards go elsewhere, and this worker is started again."""
    get_logger().critical("worker_dies", reason=reason[:1000])
    os._exit(DIED)


@dataclass(eq=False)
class Ticket:
    """An item's requests on their way through the engine; `answers` resolves when all of them are answered."""

    model: str
    requests: Sequence[Request]
    answers: Future[list[Answer]] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _answered: dict[int, Answer] = field(default_factory=dict)

    def cancel(self) -> None:
        """Give the item up at the engine's next step."""
        self.cancelled.set()

    def answer(self, k: int, answer: Answer) -> None:
        self._answered[k] = answer
        if len(self._answered) == len(self.requests) and not self.answers.done():
            self.answers.set_result([self._answered[i] for i in range(len(self.requests))])

    def fail(self, error: BaseException) -> None:
        if not self.answers.done():
            self.answers.set_exception(error)


@dataclass(frozen=True, eq=False)
class _Unit:
    """One request of a ticket."""

    ticket: Ticket
    k: int

    @property
    def request(self) -> Request:
        return self.ticket.requests[self.k]

    @property
    def batches_with(self) -> tuple[str, type]:
        return self.ticket.model, type(self.request)


class EngineHost:
    """Serves requests in the order they came, as many at once as fit a batch.

    Args:
        engines: by model name; what `janus_core.load_engine` gives.
        max_batch: requests in one batch.
    """

    def __init__(self, engines: Mapping[str, Any], *, max_batch: int) -> None:
        self._engines = engines
        self._max_batch = max_batch
        self._waiting: deque[_Unit] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._last_step: float | None = None  # when the batch that runs last showed a sign of life
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def info(self, model: str) -> Any:
        """janus_core's EngineInfo of a model this host serves."""
        return self._engines[model].info

    def fit_image(self, model: str, image: Image.Image) -> Image.Image:
        """The picture at the model's size, which gives the same answer: a queued request then holds half a megabyte."""
        fitted: Image.Image = self._engines[model].fit_image(image)
        return fitted

    @property
    def models(self) -> list[str]:
        return list(self._engines)

    def submit(self, model: str, requests: Sequence[Request]) -> Ticket:
        """Queue an item's requests."""
        ticket = Ticket(model, requests)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine host is closed")
            self._waiting.extend(_Unit(ticket, k) for k in range(len(requests)))
            self._changed.notify()
        return ticket

    def stuck_seconds(self) -> float:
        """For how long the batch that runs has taken no step; 0 while none runs."""
        last_step = self._last_step
        return 0.0 if last_step is None else time.monotonic() - last_step

    def close(self) -> None:
        """Stop after the batch that runs; what waits is given up."""
        with self._changed:
            self._closed = True
            for unit in self._waiting:
                unit.ticket.cancel()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._last_step = time.monotonic()
                self._serve(batch)
                self._last_step = None
        except BaseException as error:
            # Without this thread every lease would be renewed and nothing computed.
            die(f"the engine thread failed: {type(error).__name__}: {error}")

    def _next_batch(self) -> list[_Unit]:
        """The oldest request and those behind it that can share its batch; empty once closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[_Unit] = []
            others: deque[_Unit] = deque()
            while self._waiting and len(batch) < self._max_batch:
                unit = self._waiting.popleft()
                fits = not batch or unit.batches_with == batch[0].batches_with
                (batch if fits else others).append(unit)
            self._waiting.extendleft(reversed(others))
            return batch

    def _serve(self, batch: list[_Unit]) -> None:
        live = [unit for unit in batch if not unit.ticket.cancelled.is_set()]
        for unit in batch:
            if unit not in live:
                unit.ticket.answer(unit.k, Rejected("cancelled", "cancelled before it began"))
        if not live:
            return
        try:
            answered = list(zip(live, self._compute(live), strict=True))
        except Exception as error:
            if breaks_the_device(error):
                die(f"the device is broken: {type(error).__name__}: {error}")
            self._serve_apart(live, error)
            return
        for unit, answer in answered:
            unit.ticket.answer(unit.k, answer)

    def _compute(self, units: list[_Unit]) -> list[Answer]:
        model, kind = units[0].batches_with
        engine = self._engines[model]
        compute = engine.caption if kind is CaptionRequest else engine.generate

        def is_cancelled(i: int) -> bool:
            self._last_step = time.monotonic()
            return units[i].ticket.cancelled.is_set()

        answers: list[Answer] = compute([unit.request for unit in units], is_cancelled=is_cancelled)
        return answers

    def _serve_apart(self, units: list[_Unit], error: Exception) -> None:
        """A batch that raises is halved, until the request that is to blame is alone (memory may also have run out)."""
        log = get_logger(model=units[0].ticket.model, batch=len(units))
        log.warning("batch_raised", error=f"{type(error).__name__}: {error}"[:500])
        if len(units) == 1:
            units[0].ticket.fail(error)
            return
        middle = len(units) // 2
        self._serve(units[:middle])
        self._serve(units[middle:])
