"""How fast a process that keeps ending is started again."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from orchestrator.local.program import Program

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
STUBBORN = [sys.executable, "-c", IGNORE]


def program(home: Path, command: list[str]) -> Program:
    return Program(home, "test", command, dict(os.environ), patience_seconds=5.0)


def wait_for_end(program: Program) -> None:
    deadline = time.monotonic() + 10
    while program.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_pause_doubles_up_to_ten_seconds_and_is_forgotten_after_half_a_minute(tmp_path: Path) -> None:
    ending = program(tmp_path, ["/bin/false"])
    now, pauses = 100.0, []
    ending.tick(now)
    for _ in range(6):
        wait_for_end(ending)
        ending.tick(now)
        pause = 0.0
        while not ending.is_alive() and ending.restarts == len(pauses) + 1 and ending.pid is None and pause < 20:
            pause += 0.25
            before = ending._started_at
            ending.tick(now + pause)
            if ending._started_at != before:
                break
        now += pause
        pauses.append(pause)
    assert pauses == [0.5, 1, 2, 4, 8, 10]
    assert ending.quick_ends == 6
    wait_for_end(ending)
    ending.tick(now + 31)  # it ran for 31 s
    assert ending.quick_ends == 0
    ending.tick(now + 31.5)
    assert ending._started_at == now + 31.5
    wait_for_end(ending)


def test_asked_to_run_differently_it_starts_again_at_once_and_counts_no_restart(tmp_path: Path) -> None:
    running = program(tmp_path, SLEEP)
    running.tick(0.0)
    first = running.pid
    running.replace({**os.environ, "OTHER": "1"}, now=1.0)
    wait_for_end(running)
    running.tick(1.1)
    assert running.pid not in (None, first)
    assert running.restarts == 0
    running.stop(2.0)
    wait_for_end(running)
    running.tick(60.0)
    assert running.pid is None


def test_one_that_does_not_end_when_asked_is_killed_when_its_patience_is_over(tmp_path: Path) -> None:
    stubborn = program(tmp_path, STUBBORN)
    stubborn.tick(0.0)
    log = tmp_path / "logs" / "test.log"
    while "on" not in log.read_text():
        time.sleep(0.01)
    stubborn.stop(now=1.0)
    stubborn.tick(5.9)
    time.sleep(0.1)
    assert stubborn.is_alive()
    stubborn.tick(6.0)
    wait_for_end(stubborn)
