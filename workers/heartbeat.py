"""Holding leases: one thread renews them, looks for cancels and pauses, and says that this worker lives.

It is a thread of its own so that neither a long forward pass nor a slow store lets a lease run out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.db import leases, workers
from orchestrator.db.session import SessionFactory
from orchestrator.telemetry import get_logger
from workers import metrics


class Hold:
    """One attempt's lease as its runner sees it: `stop_reason` is None until it should stop.

    Reasons: `lost` (write nothing more), `cancel`, `pause`, `shutdown`.
    """

    def __init__(self, shard_id: int, attempt: int) -> None:
        self.shard_id = shard_id
        self.attempt = attempt
        self.stop_reason: str | None = None

    @property
    def pair(self) -> tuple[int, int]:
        return self.shard_id, self.attempt

    def stop(self, reason: str) -> None:
        """The first reason stays, but a cancelled job outranks it, and a lost lease everything."""
        if self.stop_reason is None or reason == "lost" or (reason == "cancel" and self.stop_reason != "lost"):
            self.stop_reason = reason


class Heartbeat:
    """The leases that this process holds."""

    def __init__(
        self,
        sessions: SessionFactory,
        worker_id: str,
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
        control_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._control_seconds = control_seconds
        self._clock = clock
        self._holds: dict[tuple[int, int], Hold] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def hold(self, shard_id: int, attempt: int) -> Iterator[Hold]:
        """Renew this lease until the block ends."""
        hold = Hold(shard_id, attempt)
        with self._lock:
            self._holds[hold.pair] = hold
            if self._draining:
                hold.stop("shutdown")
        try:
            yield hold
        finally:
            with self._lock:
                del self._holds[hold.pair]

    def drain(self) -> None:
        """Ask every attempt to stop and give its shard back: the process is about to end."""
        with self._lock:
            self._draining = True
            for hold in self._holds.values():
                hold.stop("shutdown")

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def holds_any(self) -> bool:
        return bool(self._holds)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        next_beat = self._clock()
        while not self._closed.is_set():
            try:
                if self._clock() >= next_beat:
                    self._beat()
                    next_beat = self._clock() + self._heartbeat_seconds
                self._look_for_stops()
            except Exception as error:
                # Postgres is away. Renewal is tried again each round; if it takes too long, the fence decides.
                metrics.HEARTBEAT_FAILURES.inc()
                get_logger().warning("heartbeat_failed", error=str(error)[:300])
            self._closed.wait(self._control_seconds)

    def _beat(self) -> None:
        held = self._held()
        with self._sessions.begin() as session:
            workers.beat(session, self._worker_id)
            if held:
                renewed = leases.renew_leases(session, held, lease_seconds=self._lease_seconds)
                metrics.RENEWALS.inc(len(renewed))

    def _look_for_stops(self) -> None:
        held = self._held()
        if not held:
            return
        with self._sessions() as session:
            stops = leases.find_stops(session, held)
        for pair, reason in stops.items():
            held[pair].stop(reason)

    def _held(self) -> dict[tuple[int, int], Hold]:
        with self._lock:
            return dict(self._holds)
