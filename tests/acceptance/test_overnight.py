"""Nights, deadlines, and small jobs beside big ones, through the whole system; its engine counts its answers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.client import Client, Job
from orchestrator.db.session import SessionFactory
from orchestrator.domain.jobs import JobState
from tests.chaos.engine import BOOK, ROWS, STEP
from tests.database import environment, sessions, settings
from tests.system import System

__all__ = ["environment", "sessions", "settings"]
pytestmark = pytest.mark.services

TURN_SECONDS = 0.1
BIG = 100_000
MARGIN_SECONDS = 12  # so long at least a window stays open for the test


class Night:
    """API, dispatcher and one worker, whose engine writes down every prompt that it answered."""

    def __init__(self, environment: dict[str, str], sessions: SessionFactory, folder: Path) -> None:
        self.sessions = sessions
        self.book = folder / "book"
        self.book.touch()
        self.system = System(environment, folder, "chaos", **{BOOK: str(self.book)})
        self.system.run("api", "orchestrator.api")
        self.system.run("dispatcher", "orchestrator.dispatch")

    def start_worker(self, turn_seconds: float = TURN_SECONDS) -> None:
        variables = {"CHAOS_ROLE": "worker", "JANUS_WORKER_ID": f"w-{time.time_ns()}", STEP: str(turn_seconds)}
        self.system.run("worker", "tests.chaos.process", **variables)
        self.system.wait_for_workers(1)

    def sql(self, query: str, **values: Any) -> list[Any]:
        with self.sessions.begin() as session:
            result = session.execute(text(query), values)
            return list(result.all()) if result.returns_rows else []

    def answered(self) -> Counter[str]:
        """How often the engine answered each prompt."""
        return Counter(self.book.read_text().splitlines())


@pytest.fixture
def night(environment: dict[str, str], sessions: SessionFactory, tmp_path: Path) -> Iterator[Night]:
    started = Night(environment, sessions, tmp_path)
    try:
        yield started
    finally:
        started.system.stop()


def prompts(name: str, count: int, folder: Path) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": f"{n}", "prompt": f"{name} {n}"}) + "\n" for n in range(count)))
    return path


def submit(client: Client, file: Path, **values: Any) -> Job:
    return client.generate(file=file, model="chaos", **values)


def test_ten_items_beside_a_hundred_thousand_take_three_shard_times(night: Night, tmp_path: Path) -> None:
    night.start_worker(turn_seconds=3 * TURN_SECONDS)  # a shard takes long beside all that is not the engine
    crowd, few = (night.system.client(night.system.make_key(team)) for team in ("crowd", "few"))
    with crowd, few:
        big = submit(crowd, prompts("big", BIG, tmp_path))
        night.system.wait_until(lambda: _finished(night, big) > 100, "the big job is under way", 120)
        shard_seconds = _shard_seconds(night, big, seconds=10)
        began = time.monotonic()
        small = submit(few, prompts("small", 10, tmp_path))
        night.system.wait_until(lambda: _finished(night, small) == 10, "ten items are done", 3 * shard_seconds)
        took = time.monotonic() - began
        assert small.wait(30).state is JobState.completed
        assert big.refresh().items.total == BIG
        assert _finished(night, big) < BIG / 10, "the crowd's job has hardly begun"
        big.cancel()
    print(f"a shard takes {shard_seconds:.1f} s beside others; ten items took {took:.1f} s")
    assert took <= 3 * shard_seconds


def test_a_window_that_closes_cuts_nothing_and_nothing_begins_after_it(night: Night, tmp_path: Path) -> None:
    night.start_worker()
    opens, closes = _next_closing()
    with night.system.client() as client:
        job = submit(client, prompts("night", 4000, tmp_path), window=f"{opens:%H:%M}-{closes:%H:%M} UTC")
        assert job.view.window == f"{opens:%H:%M}-{closes:%H:%M} UTC"
        night.system.wait_until(lambda: _finished(night, job) > 40, "it runs in its window", MARGIN_SECONDS)
        time.sleep((closes - datetime.now(UTC)).total_seconds())
        in_flight = "SELECT id FROM shards WHERE state IN ('dispatched', 'leased')"
        night.system.wait_until(lambda: not night.sql(in_flight), "all shards are given back", 10 * TURN_SECONDS + 2)
        ended_in_time = datetime.now(UTC)
        asked = night.answered()
        assert ended_in_time - closes < timedelta(seconds=10 * TURN_SECONDS + 2)
        assert sum(asked.values()) == _finished(night, job) < 4000, "what was begun was kept"
        time.sleep(3)
        assert night.answered() == asked, "nothing begins any more"
        view = job.refresh()
        assert (view.state, view.items.finished) == (JobState.running, sum(asked.values()))
        assert (view.waiting_reason or "").startswith(f"its window opens at {opens:%H:%M} UTC")

        night.system.kill("worker")
        night.sql("UPDATE jobs SET run_window = NULL")
        night.start_worker(turn_seconds=0)
        assert job.wait(120).state is JobState.completed
        asked = night.answered()
        assert len(asked) == 4000
        assert set(asked.values()) == {1}, "no item was computed twice"
        assert job.verify().ok


def test_a_deadline_ends_a_job_and_leaves_all_that_is_finished(night: Night, tmp_path: Path) -> None:
    night.start_worker()
    with night.system.client() as client:
        deadline_at = datetime.now(UTC) + timedelta(seconds=8)
        job = submit(client, prompts("late", 2000, tmp_path), deadline_at=deadline_at)
        assert job.view.deadline_at == deadline_at
        view = job.wait(60)
        assert view.state is JobState.expired
        assert view.finished_at is not None
        assert timedelta() < view.finished_at - deadline_at < timedelta(seconds=10)
        items = view.items
        assert items.results + items.cancelled == items.total == 2000
        assert items.results > ROWS
        assert items.cancelled > 0
        job.download(tmp_path / "late-results.jsonl")
        lines = (tmp_path / "late-results.jsonl").read_text().splitlines()
        assert len(lines) == items.results
        assert job.verify().ok
        types = [event.type for event in job.events()]
        assert "job.deadline_passed" in types
        assert types[-1] == "job.expired"
    when = ("--window", "Sat,Sun 22:00-06:00 Europe/Berlin", "--deadline", "2033-01-31T07:00+0100")
    where = ("--model", "chaos", "--out", str(tmp_path / "out"), "--detach", "--json")
    said = night.system.janus("generate", "a prompt", *when, *where)
    assert said.returncode == 0, said.stderr
    view = json.loads(said.stdout)
    assert (view["window"], view["deadline_at"]) == ("Sat,Sun 22:00-06:00 Europe/Berlin", "2033-01-31T06:00:00Z")


def _finished(night: Night, job: Job) -> int:
    query = "SELECT coalesce(sum(num_results + num_failures), 0) FROM shards WHERE job_id = :id"
    return int(night.sql(query, id=job.id)[0][0])


def _shard_seconds(night: Night, job: Job, *, seconds: float) -> float:
    """How long a shard is in a worker's hands: those that are, over how many leave in a second (Little's law)."""
    query = "SELECT state, count(*) FROM shards WHERE job_id = :id AND state IN ('leased', 'done') GROUP BY state"
    looks = []
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        looks.append(dict(map(tuple, night.sql(query, id=job.id))))
        time.sleep(0.25)
    held = sum(look.get("leased", 0) for look in looks) / len(looks)
    left = looks[-1].get("done", 0) - looks[0].get("done", 0)
    assert left > 0, looks
    return held * seconds / left


def _next_closing() -> tuple[datetime, datetime]:
    """A window that is open now and closes at a full minute, in some seconds."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    closes = now + timedelta(minutes=1)
    if (closes - datetime.now(UTC)).total_seconds() < 2 * MARGIN_SECONDS:
        closes += timedelta(minutes=1)
    return closes - timedelta(hours=1), closes
