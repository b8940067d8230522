"""Windows, deadlines and turns by weight, on a real Postgres; `tests/acceptance/test_overnight.py` has them whole."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text, update

from orchestrator.api.job_views import view_job
from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, leases, queueing, teams
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.jobs import JobState
from orchestrator.settings import Settings
from tests.integration.test_shards import World
from tests.unit.test_engine_host import GatedEngine
from workers.attempt import Attempt
from workers.board import Board
from workers.engine_host import Caption, EngineHost, Rejected
from workers.heartbeat import Hold
from workers.inputs import open_inputs

pytestmark = pytest.mark.services


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    return World(sessions, store)


def window_around(world: World, begin_minutes: int, end_minutes: int) -> str:
    """A window in UTC that opens and closes so many minutes from now."""
    now = world.now().astimezone(ZoneInfo("UTC"))
    opens, closes = now + timedelta(minutes=begin_minutes), now + timedelta(minutes=end_minutes)
    return f"{opens:%H:%M}-{closes:%H:%M} UTC"


def jobs_of(world: World, messages: list[queueing.Message]) -> Counter[str]:
    return Counter(world.shard(message.shard_id).job_id for message in messages)


def serve(world: World, message: queueing.Message) -> None:
    """A worker takes a shard and finishes it."""
    shard = world.lease(message)
    assert shard is not None
    world.write(message, list(range(shard.first_index, shard.first_index + shard.num_items)))
    world.finish(message)


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_a_job_runs_inside_its_window_only(world: World) -> None:
    later = world.make_job(run_window=window_around(world, 120, 240))
    assert world.dispatch() == []
    inside = world.now(plus_seconds=3 * 3600)
    world.dispatcher.run_once(inside)
    assert jobs_of(world, world.broker.published) == {later: 2}
    shard = world.shard(world.broker.published[0].shard_id)
    assert shard.closes_at is not None
    assert 3600 * 3 < (shard.closes_at - world.now()).total_seconds() <= 3600 * 4


def test_closed_windows_do_not_hold_up_what_may_run(world: World) -> None:
    """Of the same team and with a higher priority."""
    world.make_job(priority=50, run_window=window_around(world, 120, 240))
    by_day = world.make_job()
    assert jobs_of(world, world.dispatch()) == {by_day: 2}


def test_nothing_is_begun_after_the_window_closed(world: World) -> None:
    job_id = world.make_job(run_window=window_around(world, -60, 60))
    first, second = world.dispatch()
    with world.sessions.begin() as session:
        session.execute(update(ShardRow).values(closes_at=text("clock_timestamp()")))
    assert world.lease(first) is None
    with world.sessions.begin() as session:  # tomorrow's window has not opened yet
        session.execute(update(JobRow).values(run_window=window_around(world, 120, 180)))
    assert world.dispatch() == []
    assert {world.shard(message.shard_id).state for message in (first, second)} == {"waiting"}
    with world.sessions.begin() as session:
        session.execute(update(JobRow).values(run_window=None))
    again = world.dispatch()
    assert [message.attempt for message in again] == [2, 2]
    for message in again:
        serve(world, message)
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.completed


def test_a_worker_knows_how_long_it_may_begin_items(world: World) -> None:
    world.make_job(items=4, run_window=window_around(world, -60, 60))
    world.make_job(items=4, team="b")
    left = set()
    for message in world.dispatch():
        shard = world.lease(message)
        assert shard is not None
        with world.sessions() as session:
            left.add(leases.seconds_left(session, shard))
    assert None in left
    (seconds,) = left - {None}
    assert seconds is not None
    assert 59 * 60 - 1 < seconds <= 3600


class OneByOneEngine(GatedEngine):
    """A turn answers the row that came first, and has not begun the others."""

    def turn(self) -> list[Any]:
        self.begun.set()
        assert self.gate.wait(10)
        row = self.started.pop(0)
        row.answer = Rejected("cancelled", "c") if row.is_cancelled else Caption(row.prompt, (), "stop")
        return [row]


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def attempt(world: World, settings: Settings, engine: GatedEngine) -> Iterator[Callable[..., tuple[Attempt, Hold]]]:
    """Attempts of one worker, by message and the seconds that their windows are open."""
    host, board = EngineHost({"m": engine}), Board(seconds=60)

    def make(message: queueing.Message, seconds_left: float | None) -> tuple[Attempt, Hold]:
        shard, hold = world.lease(message), Hold(message.shard_id, message.attempt)
        assert shard is not None
        with world.sessions() as session:
            job = jobs.get_job(session, shard.job_id)
        inputs = open_inputs(settings, world.store)
        return Attempt(settings, world.sessions, world.store, inputs, host, board, job, shard, hold, seconds_left), hold

    yield make
    engine.gate.set()
    host.close()


@pytest.mark.parametrize("engine", [OneByOneEngine()])
def test_what_waits_for_its_equal_is_left_with_it_when_the_window_closes(
    world: World, engine: GatedEngine, attempt: Callable[..., tuple[Attempt, Hold]]
) -> None:
    """Both are of the same shard: the one is taken back from the engine, and nobody will answer the other."""
    lines = [json.dumps({"prompt": prompt, "seed": 1}) for prompt in ("first", "equal", "equal")]
    world.make_job(input={"lines": lines}, run_window=window_around(world, -60, 60))
    (message,) = world.dispatch()
    running, _ = attempt(message, 1.0)
    with ThreadPoolExecutor(1) as threads:
        ends = threads.submit(running.run)
        assert engine.begun.wait(10)
        time.sleep(1.5)  # the window is over
        engine.gate.set()
        assert ends.result(20) == "released"
    shard = world.shard(message.shard_id)
    assert (shard.state, shard.num_results) == ("waiting", 1)


def test_what_comes_back_after_the_window_closed_is_not_begun(
    world: World, engine: GatedEngine, attempt: Callable[..., tuple[Attempt, Hold]]
) -> None:
    """An item that waited for its equal is nobody's when that one is cancelled; its own window is over by then."""
    world.make_job(items=1)
    world.make_job(items=1, run_window=window_around(world, -60, 60))
    first, second = sorted(world.dispatch(), key=lambda message: world.shard(message.shard_id).closes_at is not None)
    (computing, hold), (waiting, _) = attempt(first, None), attempt(second, 0.5)
    with ThreadPoolExecutor(2) as threads:
        ends = threads.submit(computing.run)
        assert engine.begun.wait(10)
        waits = threads.submit(waiting.run)
        time.sleep(1)  # the window is over
        hold.stop("cancel")
        while not all(row.is_cancelled for row in engine.started):
            time.sleep(0.01)
        engine.gate.set()
        assert (ends.result(10), waits.result(10)) == ("cancelled", "released")
    assert sum(map(len, engine.turns)) == 0, "one was cancelled, the other never asked"


# --- Deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_deadline_keeps_what_is_finished_and_ends_the_rest(world: World, is_paused: bool) -> None:
    job_id = world.make_job(items=12, deadline_at=world.now(plus_seconds=3600))
    first, second, _ = world.dispatch()
    serve(world, first)
    assert world.lease(second) is not None
    world.write(second, [4])
    if is_paused:
        world.pause(job_id)
    world.reaper.run_once(world.now())
    assert world.state(job_id) == JobState.running
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).deadline_at = world.now()
    world.reaper.run_once(world.now())
    with world.sessions() as session:
        assert leases.find_stops(session, [(second.shard_id, 1)]) == {(second.shard_id, 1): "cancel"}
    with world.sessions.begin() as session:
        leases.cancel_shard_if_leased(session, second.shard_id, second.attempt)
    assert world.finisher.run_once(world.now()) == 1
    with world.sessions() as session:
        job = jobs.get_job(session, job_id)
        counted = (job.num_items, job.num_results, job.num_failures, job.num_cancelled)
    assert (job.state, counted) == (JobState.expired, (12, 5, 0, 7))
    assert len(world.store.get(f"jobs/{job_id}/results.jsonl").splitlines()) == 5


def test_a_deadline_that_comes_when_all_is_finished_changes_nothing(world: World) -> None:
    job_id = world.make_job(items=4, deadline_at=world.now(plus_seconds=3600))
    (message,) = world.dispatch()
    serve(world, message)
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).deadline_at = world.now()
    world.reaper.run_once(world.now())
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.completed


def test_a_job_that_was_cancelled_before_its_deadline_is_cancelled(world: World) -> None:
    job_id = world.make_job(items=4, deadline_at=world.now(plus_seconds=3600))
    world.cancel(job_id)
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).deadline_at = world.now(plus_seconds=1)
    world.reaper.run_once(world.now(plus_seconds=2))
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.cancelled


# --- Why a job waits --------------------------------------------------------------------------------------------------


def reason(world: World, job_id: str) -> str | None:
    with world.sessions() as session:
        return view_job(session, jobs.get_job(session, job_id)).waiting_reason


def test_a_job_says_why_it_waits(world: World) -> None:
    world.start_worker()
    at_night = world.make_job(run_window=window_around(world, 120, 240))
    opens = world.now() + timedelta(minutes=120)
    assert (reason(world, at_night) or "").startswith(f"its window opens at {opens:%H:%M} UTC")
    first, second = world.make_job(items=40, team="one"), world.make_job(items=40, team="one")
    world.dispatch()
    third = world.make_job(items=4, team="two", run_window=window_around(world, -60, 60))
    assert reason(world, first) == "its first items are queued or being worked on"
    assert reason(world, second) == "it is behind other jobs of its team, with a higher priority or older"
    assert reason(world, third) == "it is behind 1 other team; its turn comes within a few shards"
    world.dispatch()
    assert reason(world, third) == "its first items are queued or being worked on"
    for message in world.broker.published:
        serve(world, message)
    assert reason(world, third) is None
    with world.sessions.begin() as session:
        jobs.get_job(session, second).deadline_at = world.now()
    world.reaper.run_once(world.now())
    assert reason(world, second) == "its deadline has passed; workers drop what they hold within seconds"


# --- Turns ------------------------------------------------------------------------------------------------------------


def test_a_small_job_is_not_behind_what_others_have_queued(world: World) -> None:
    world.make_job(items=400, team="big")
    assert len(world.dispatch()) == 4
    small = world.make_job(items=8, team="small")
    messages = world.dispatch()
    assert messages[0].is_express
    assert jobs_of(world, messages)[small] >= 1


def test_weight_is_a_share(world: World) -> None:
    """Three for one, however the queue is emptied."""
    heavy, light = world.make_job(items=800, team="heavy"), world.make_job(items=800, team="light")
    with world.sessions.begin() as session:
        teams.set_weight(session, "heavy", 3)
    done, express, ordinary = Counter[str](), list[queueing.Message](), list[queueing.Message]()
    for _ in range(80):
        for message in world.dispatch():
            (express if message.is_express else ordinary).append(message)
        message = express.pop(0) if express else ordinary.pop(0)
        done += jobs_of(world, [message])
        serve(world, message)
    assert abs(done[heavy] - 60) <= 4, done
    assert done[heavy] + done[light] == 80
