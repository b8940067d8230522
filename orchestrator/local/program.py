"""One process that is kept running: started again when it ends, ever more slowly while it keeps ending."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.local import children
from orchestrator.local.children import Identity, Record
from orchestrator.local.files import log_path

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 10.0
SETTLED_SECONDS = 30.0  # a process that ran so long starts again without delay growing


class Program:
    """The wanted state is told to it; `tick` brings the process there. Time is handed in."""

    def __init__(
        self, home: Path, name: str, command: Sequence[str], env: Mapping[str, str], *, patience_seconds: float
    ) -> None:
        self.home, self.name, self.command, self.env = home, name, list(command), dict(env)
        self.patience_seconds = patience_seconds
        self.restarts = 0
        self.quick_ends = 0  # how often in a row it ended by itself before it had settled
        self._child: Identity | None = None
        self._wanted = True
        self._started_at = 0.0
        self._start_at = 0.0
        self._kill_at: float | None = None
        self._delay_seconds = FIRST_DELAY_SECONDS
        self._record_path = home / "run" / f"{name}.json"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self.is_alive() and self._child is not None else None

    @property
    def ending(self) -> bool:
        """Whether it has been asked to end, or is not wanted any more."""
        return self._kill_at is not None or not self._wanted

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.find() is not None

    def stop(self, now: float) -> None:
        """Ask it to end; `tick` kills it when its patience is over."""
        self._wanted = False
        self._ask_to_end(now)

    def replace(self, env: Mapping[str, str], now: float) -> None:
        """Run it with another environment: it ends in its own time and starts again at once."""
        self.env, self._wanted = dict(env), True
        self._ask_to_end(now)

    def tick(self, now: float) -> None:
        """Start, start again, or kill it, whichever is due."""
        if self._child is not None and self._child.find() is not None:
            if self._kill_at is not None and now >= self._kill_at:
                self._signal(signal.SIGKILL)
            if now - self._started_at >= SETTLED_SECONDS:
                self.quick_ends = 0
            return
        if self._child is not None:
            self._note_end(now)
        if self._wanted and now >= self._start_at:
            self._start(now)

    def _ask_to_end(self, now: float) -> None:
        if self.is_alive():
            self._kill_at = now + self.patience_seconds
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        process = self._child.find() if self._child is not None else None
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _note_end(self, now: float) -> None:
        asked, self._kill_at, self._child = self._kill_at is not None, None, None
        self._record_path.unlink(missing_ok=True)
        if asked:
            self._start_at, self._delay_seconds, self.quick_ends = now, FIRST_DELAY_SECONDS, 0
            return
        if now - self._started_at >= SETTLED_SECONDS:
            self._delay_seconds, self.quick_ends = FIRST_DELAY_SECONDS, 0
        else:
            self.quick_ends += 1
        self._start_at = now + self._delay_seconds
        self._delay_seconds = min(2 * self._delay_seconds, MAX_DELAY_SECONDS)
        self.restarts += 1

    def _start(self, now: float) -> None:
        children.end_orphan(self._record_path, self.patience_seconds)
        log = log_path(self.home, self.name)
        self._child = children.spawn(self.command, log=log, env=self.env, cwd=self.home)
        self._started_at = now
        Record(self._child, Identity.of(os.getpid())).write(self._record_path)
