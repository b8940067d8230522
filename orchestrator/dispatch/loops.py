"""Running the duties: each in its own thread, again and again, none able to stop another."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.db.session import SessionFactory, database_now
from orchestrator.dispatch import metrics
from orchestrator.telemetry import bind, get_logger

FIRST_PAUSE = 8  # of a duty that did something is so many times shorter than its longest


class Duty(Protocol):
    def run_once(self, now: datetime) -> int: ...


class DatabaseClock:
    """The database's time, asked for every few seconds and counted on from there: most rounds find nothing to do, and
    asking would be half of their cost. Any thread may ask."""

    def __init__(self, sessions: SessionFactory, *, every_seconds: float = 2.0) -> None:
        self._sessions, self._every_seconds = sessions, every_seconds
        self._lock = threading.Lock()
        self._told: tuple[datetime, float] | None = None  # what it said, and when that was by our own clock

    def now(self) -> datetime:
        with self._lock:
            if self._told is None or time.monotonic() - self._told[1] > self._every_seconds:
                with self._sessions() as session:
                    self._told = database_now(session), time.monotonic()
            told, asked_at = self._told
            return told + timedelta(seconds=time.monotonic() - asked_at)


class Loops:
    """Threads that call `run_once` with the database's time until told to stop.

    A duty that found nothing to do pauses: shortly at first, as what it waits for often comes soon, and longer each
    time. One without a pause of its own pauses no longer than until another did something.
    """

    def __init__(self, sessions: SessionFactory, *, pause_seconds: float) -> None:
        self._clock = DatabaseClock(sessions)
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._wakes: list[threading.Event] = []
        self._eager: list[threading.Event] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, duty: Duty, *, every_seconds: float | None = None) -> None:
        pause, wake = every_seconds or self._pause_seconds, threading.Event()
        self._wakes.append(wake)
        if every_seconds is None:
            self._eager.append(wake)
        thread = threading.Thread(target=self._run, args=(name, duty, pause, wake), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self, timeout_seconds: float = 30) -> None:
        """Let every duty end its round."""
        self.request_stop()
        for thread in self._threads:
            thread.join(timeout_seconds)

    def wait(self) -> None:
        self._stop.wait()

    def request_stop(self) -> None:
        self._stop.set()
        for wake in self._wakes:
            wake.set()

    def _run(self, name: str, duty: Duty, pause_seconds: float, wake: threading.Event) -> None:
        bind(duty=name)
        log = get_logger()
        delay = pause_seconds / FIRST_PAUSE
        while not self._stop.is_set():
            wake.clear()
            try:
                now = self._clock.now()
                with metrics.one_round(name):
                    done = duty.run_once(now)
                if done:
                    delay = pause_seconds / FIRST_PAUSE
                    log.info("round", done=done)
                    for other in self._eager:
                        other.set()
                    continue
                delay = min(delay * 2, pause_seconds)
            except Exception as error:
                # Postgres, Redis or the store is away: everything that matters is in rows, so trying again is enough.
                metrics.FAILURES.labels(name).inc()
                log.warning("round_failed", error=f"{type(error).__name__}: {error}"[:500])
                delay = min(max(delay, 0.1) * 2, 10.0)
            if not self._stop.is_set():
                wake.wait(delay)
