"""Ends of nights, told to a real receiver: once for each, whoever begins anew, and what the night brought."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, teams, webhooks
from orchestrator.db.ownership import confine
from orchestrator.db.queueing import Message
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import DeliveryRow, JobRow
from orchestrator.dispatch.deliverer import Deliverer
from orchestrator.dispatch.reporter import Reporter
from orchestrator.domain.jobs import JobState
from tests.http_server import serving
from tests.integration.test_overnight import window_around
from tests.integration.test_shards import World
from tests.integration.test_webhooks import Receiver

pytestmark = pytest.mark.services


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    made = World(sessions, store)
    with sessions.begin() as session:
        team = teams.create_team(session, "a")
        confine(session, team.id)
        webhooks.create_webhook(session, team.id, "https://example.org/")
    return made


def told(world: World) -> list[dict[str, Any]]:
    """Reports so far, the oldest first."""
    with world.sessions() as session:
        rows = session.scalars(select(DeliveryRow).order_by(DeliveryRow.created_at)).all()
    return [said["data"] for row in rows if (said := json.loads(row.body))["type"] == "job.report"]


def finish(world: World, message: Message, failures: int = 0) -> None:
    shard = world.lease(message)
    assert shard is not None
    indexes = list(range(shard.first_index, shard.first_index + shard.num_items))
    world.write(message, indexes[failures:], indexes[:failures])
    world.finish(message)


def make_job(world: World, items: int = 16) -> str:
    """One that runs in a window which closes in a minute or less, and began an hour ago."""
    job_id = world.make_job(items=items, run_window=window_around(world, -60, 1))
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).started_at = world.now(plus_seconds=-3600)
    return job_id


def test_a_night_is_told_once_with_what_it_brought(world: World) -> None:
    job_id = make_job(world)
    first, second, held, _ = world.dispatch()
    finish(world, first, failures=1)
    finish(world, second)
    assert world.lease(held) is not None
    assert Reporter(world.sessions).run_once(world.now()) == 0, "it is not over"
    morning = world.now(plus_seconds=120)
    assert Reporter(world.sessions).run_once(morning) == 0, "a worker still finishes something"
    world.write(held, [8])
    assert [Reporter(world.sessions).run_once(morning + timedelta(minutes=6)) for _ in range(3)] == [1, 0, 0]
    (report,) = told(world)
    assert (report["id"], report["state"], report["finished"], report["remaining"]) == (job_id, "running", 9, 7)
    assert report["items"] == {"total": 16, "results": 8, "failures": 1, "cancelled": 0, "reused": 0}
    assert report["failures"] == {"engine_error": 1}
    assert 3500 < report["seconds"] <= 3720
    assert report["items_per_second"] == pytest.approx(9 / report["seconds"])
    ends_at, closes_at = (datetime.fromisoformat(report[name]) for name in ("ends_at", "closes_at"))
    assert timedelta(hours=22) < ends_at - closes_at < timedelta(hours=24), "in the next night"
    assert report["gallery"] == f"/jobs/{job_id}/gallery"

    world.write(held, [9, 10, 11], part=1)
    world.finish(held)
    with world.sessions() as session:
        assert jobs.get_job(session, job_id).reported_items == 9
    assert Reporter(world.sessions).run_once(morning + timedelta(days=1, minutes=6)) == 1
    assert [report["finished"] for report in told(world)] == [9, 3], "each night has its own"


def test_a_job_that_ends_in_its_window_tells_of_the_night_then(world: World) -> None:
    job_id = make_job(world, items=8)
    for message in world.dispatch():
        finish(world, message)
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.completed
    (report,) = told(world)
    assert (report["state"], report["finished"], report["remaining"], report["ends_at"]) == ("completed", 8, 0, None)
    assert Reporter(world.sessions).run_once(world.now(plus_seconds=600)) == 0
    with world.sessions() as session:
        types = [json.loads(body)["type"] for body in session.scalars(select(DeliveryRow.body))]
    assert sorted(types) == ["job.completed", "job.report"]


@pytest.mark.parametrize("was_told", [False, True])
def test_what_is_merged_after_the_night_tells_of_it_only_if_nobody_has(world: World, was_told: bool) -> None:
    make_job(world, items=8)
    for message in world.dispatch():
        finish(world, message)
    with world.sessions.begin() as session:  # the window closed a while ago
        session.execute(update(JobRow).values(run_window=window_around(world, -90, -30)))
        jobs_row = session.scalars(select(JobRow)).one()
        jobs_row.started_at = world.now(plus_seconds=-5400)
    if was_told:
        assert Reporter(world.sessions).run_once(world.now()) == 1
    world.finisher.run_once(world.now())
    assert [report["finished"] for report in told(world)] == [8]


def test_nights_before_a_job_and_jobs_without_a_window_are_not_told(world: World) -> None:
    world.make_job(run_window=window_around(world, -120, -60))
    world.make_job()
    assert Reporter(world.sessions).run_once(world.now()) == 0
    assert told(world) == []


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.answers, Receiver.heard = [], []
    with serving(Receiver) as url:
        yield f"{url}/hear"


def test_a_report_is_delivered_as_other_messages_are(world: World, receiver: str) -> None:
    with world.sessions.begin() as session:
        session.execute(update(webhooks.WebhookRow).values(url=receiver))
    make_job(world)
    Reporter(world.sessions).run_once(world.now(plus_seconds=400))
    duty = Deliverer(world.sessions, seconds=5, allow_private=True)
    assert duty.run_once(world.now()) == 1
    [(headers, body)] = Receiver.heard
    assert headers["webhook-id"].startswith("msg_")
    assert json.loads(body)["type"] == "job.report"
    assert len(body) < 1500
