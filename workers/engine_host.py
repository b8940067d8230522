"""The one door to janus_core: one thread owns the engines, and requests of all shards in flight share their steps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from janus_core import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected
from janus_core.errors import JanusCoreError
from orchestrator.telemetry import get_logger
from workers.metrics import EngineMeter

__all__ = [
    "Answer",
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


def load(models: Sequence[str], **options: Any) -> dict[str, Any]:
    """Engines by model name, from `name` (a registry name) or `name=/path/to/checkpoint`; options: `load_engine`'s."""
    from janus_core import load_engine  # torch comes with it

    engines = {}
    for model in models:
        name, _, path = model.partition("=")
        engines[name] = load_engine(path or name, **options)
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
    """An item's requests on their way through the engine; `answers` resolves when all of them have left it.

    rows: what the engine made of them; `Rejected` has its answer already.
    """

    engine: Any
    rows: Sequence[Any]
    answers: Future[list[Answer]] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.submitted_at = 0.0
        self._running = {row for row in self.rows if not isinstance(row, Rejected)}
        self._settle()

    @property
    def has_begun(self) -> bool:
        """Whether some of its rows run, or have left; to be asked between the engine's turns."""
        asked = [row for row in self.rows if not isinstance(row, Rejected)]
        return len(self._running) < len(asked) or any(row.begun_at is not None for row in asked)

    def cancel(self) -> None:
        """Give the item up at the engine's next step."""
        for row in self._running.copy():
            row.is_cancelled = True

    def leave(self, row: Any) -> None:
        """A row is answered, or failed. Of an item with a failed one the others are given up."""
        self._running.discard(row)
        if row.error is not None:
            self.cancel()
        self._settle()

    def _settle(self) -> None:
        if self._running or self.answers.done():
            return
        errors = [row.error for row in self.rows if not isinstance(row, Rejected) and row.error is not None]
        if errors:
            self.answers.set_exception(errors[0])
        else:
            self.answers.set_result([row if isinstance(row, Rejected) else row.answer for row in self.rows])


class EngineHost:
    """Hands requests to the engines as they come, and takes turns with those that have work.

    engines: by model name; what `janus_core.load_engine` gives. Each bounds what it computes at a time by itself; what
    waits for it is bounded by those who submit (see Attempt).
    """

    def __init__(self, engines: Mapping[str, Any]) -> None:
        self._engines = engines
        self._meters = {engine: EngineMeter(model) for model, engine in engines.items()}
        self._arrived: list[Ticket] = []
        self._withdrawals: list[tuple[Sequence[Ticket], Future[set[Ticket]]]] = []
        self._tickets: dict[Any, Ticket] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._last_step: float | None = None  # when the turn that is taken began
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def info(self, model: str) -> Any:
        """janus_core's EngineInfo of a model this host serves."""
        return self._engines[model].info

    def max_rows(self, model: str) -> int:
        """Most rows in one step of the model's engine."""
        rows: int = self._engines[model].max_rows
        return rows

    def num_running(self, model: str) -> int:
        """Rows that take part in the turns of the model's engine now."""
        running: int = self._engines[model].num_running
        return running

    def num_waiting(self, model: str) -> int:
        """Rows that wait in the model's engine for a place."""
        engine = self._engines[model]
        return max(0, self._meters[engine].num_inside - int(engine.num_running))

    def free_bytes(self, model: str) -> int:
        """Free memory of the GPU that the model is on, or of the machine."""
        from janus_core.engine.devices import free_bytes  # torch comes with it

        return free_bytes(self._engines[model].model.device)

    def image_settings(self, model: str) -> dict[str, Any]:
        """The fields of the model's ImageSettings, for who brings pictures to its size (see workers.decoder)."""
        return asdict(self._engines[model].images)

    @property
    def models(self) -> list[str]:
        return list(self._engines)

    def prepare(self, model: str, requests: Sequence[Request], *, job: str = "", order: int = 0) -> Ticket:
        """An item's requests, checked, tokenised and scaled by the calling thread.

        job: whose share they count against; order: of a job's items the lowest goes first.
        """
        engine = self._engines[model]
        return Ticket(engine, [engine.prepare(request, job=job, order=order) for request in requests])

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Queue some items' requests."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine host is closed")
            for ticket in tickets:
                ticket.submitted_at = time.monotonic()
            self._arrived += tickets
            self._changed.notify()

    def withdraw(self, tickets: Sequence[Ticket]) -> set[Ticket]:
        """Take back those of which nothing was begun; which. Their answers are nobody's: that they were cancelled.

        Waits for the turn that is taken, as the engine may begin any of them in it.
        """
        withdrawn: Future[set[Ticket]] = Future()
        with self._changed:
            if self._closed:
                return set()
            self._withdrawals.append((tickets, withdrawn))
            self._changed.notify()
        return withdrawn.result()

    def stuck_seconds(self) -> float:
        """For how long the turn that is taken has lasted; 0 while none is."""
        last_step = self._last_step
        return 0.0 if last_step is None else time.monotonic() - last_step

    def close(self) -> None:
        """Give up what runs and waits, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_in():
                for engine in self._engines.values():
                    if not engine.is_idle:
                        self._last_step = time.monotonic()
                        self._turn(engine)
                self._last_step = None
        except BaseException as error:
            # Without this thread every lease would be renewed and nothing computed.
            die(f"the engine thread failed: {type(error).__name__}: {error}")

    def _take_in(self) -> bool:
        """Start what arrived, once there is something to do; false when closed and nothing runs any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._tickets or self._closed or self._withdrawals)
            arrived, self._arrived = self._arrived, []
            withdrawals, self._withdrawals = self._withdrawals, []
            closed = self._closed  # what is withdrawn later than this is answered by a later call
        for ticket in arrived:
            for row in ticket.rows:
                if not isinstance(row, Rejected):
                    self._tickets[row] = ticket
                    self._meters[ticket.engine].num_inside += 1
                    ticket.engine.start(row)
        for tickets, withdrawn in withdrawals:
            fresh = {ticket for ticket in tickets if not ticket.has_begun}
            for ticket in fresh:
                ticket.cancel()
            withdrawn.set_result(fresh)
        if closed:
            for ticket in self._tickets.values():
                ticket.cancel()
        return bool(self._tickets) or not closed

    def _turn(self, engine: Any) -> None:
        meter, began = self._meters[engine], time.monotonic()
        try:
            left = engine.turn()
        except Exception as error:
            # Its rows run again in halves, until the one to blame is alone and leaves with the error.
            _die_if_broken(error)
            get_logger(model=engine.info.name).warning("batch_raised", error=f"{type(error).__name__}: {error}"[:500])
            return
        meter.turn(engine.num_running + len(left), time.monotonic() - began)
        for row in left:
            if row.error is not None:
                _die_if_broken(row.error)
            ticket = self._tickets.pop(row)
            meter.left(row, ticket.submitted_at)
            ticket.leave(row)


def _die_if_broken(error: Exception) -> None:
    if breaks_the_device(error):
        die(f"the device is broken: {type(error).__name__}: {error}")
