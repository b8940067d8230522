"""Where API, dispatcher and workers of a storm begin: the real processes, with what the environment asks for.

CHAOS_ROLE   api, dispatcher or worker
CHAOS_POINT  a crash point, see `points`
CHAOS_OFF    reaper, reconciler or fence: what is switched off, see `blind`
CHAOS_CLOCK  a file with seconds; on SIGNAL this process's clock jumps by so much
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import time_machine

from tests.chaos import blind, points
from tests.chaos.engine import FastEngine

SIGNAL = signal.SIGRTMIN
MAINS = {
    "api": "orchestrator.api.__main__",
    "dispatcher": "orchestrator.dispatch.__main__",
    "worker": "workers.__main__",
}


def main() -> int:
    role = os.environ["CHAOS_ROLE"]
    signal.signal(SIGNAL, lambda *_: jump())
    if role == "worker":
        engine_host = import_module("workers.engine_host")
        engine_host.load = lambda *_, **__: {"chaos": FastEngine()}  # type: ignore[attr-defined]
    started = import_module(MAINS[role])
    if os.environ.get("CHAOS_OFF"):
        blind.switch_off(os.environ["CHAOS_OFF"])
    if os.environ.get("CHAOS_POINT"):
        points.arm(os.environ["CHAOS_POINT"])
    status: int = started.main()
    return status


def jump() -> None:
    """Shift `time.time` and `datetime.now` of this process; the monotonic clock goes on as it does."""
    seconds = float(Path(os.environ["CHAOS_CLOCK"]).read_text())
    time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True).start()


if __name__ == "__main__":
    sys.exit(main())
