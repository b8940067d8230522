"""Estimates and times of arrival from what was measured, on a real Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import TypeAdapter
from sqlalchemy import update

from orchestrator.api.estimate_views import view_estimate
from orchestrator.api.job_views import view_job
from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, quotas, rates, teams, workers
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import RateRow, ShardRow
from orchestrator.domain.estimates import USUAL_STEPS
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.quotas import Quota
from orchestrator.schemas import EstimateCreate, EstimateView, JobView
from tests.integration.test_overnight import window_around
from tests.integration.test_shards import World

pytestmark = pytest.mark.services


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    return World(sessions, store)


def measure(world: World, num_items: int = 100, seconds: float = 50, worker: str = "w") -> None:
    """A worker that draws `num_items` images in so many seconds."""
    with world.sessions.begin() as session:
        work = float(num_items * USUAL_STEPS)
        rates.add(session, worker, "m", JobKind.generate, num_items=num_items, work=work, seconds=seconds)


def serve_with(world: World, count: int) -> None:
    with world.sessions.begin() as session:
        for number in range(count):
            workers.register_worker(session, f"w{number}", host="h", pid=1, models=["m"])


def estimate(world: World, team: str = "a", **values: object) -> EstimateView:
    body = {"kind": "generate", "model": "m", "items": 120} | values
    with world.sessions.begin() as session:
        owner = teams.find_team(session, team) or teams.create_team(session, team)
        return view_estimate(session, owner.id, TypeAdapter(EstimateCreate).validate_python(body), 4)


def view(world: World, job_id: str) -> JobView:
    with world.sessions() as session:
        return view_job(session, jobs.get_job(session, job_id))


def test_without_a_measurement_it_says_so_instead_of_a_number(world: World) -> None:
    told = estimate(world)
    assert (told.seconds, told.ends_at, told.measured, told.fits_window) == (None, None, None, None)
    assert any("nothing was measured" in note for note in told.notes)
    assert any("no worker serves m now" in note for note in told.notes)


def test_measured_rates_are_scaled_by_images_steps_and_workers(world: World) -> None:
    measure(world)
    measure(world, worker="other", num_items=10, seconds=5)
    told = estimate(world)
    assert told.measured is not None
    assert (told.measured.items, told.measured.workers, told.workers) == (110, 2, 2)
    assert any("reckoned with the 2 that were measured" in note for note in told.notes)
    assert told.seconds == pytest.approx(30), "120 images, two workers, each two a second"
    serve_with(world, 3)
    assert estimate(world).seconds == pytest.approx(20)
    assert estimate(world, options={"images": 4}).seconds == pytest.approx(80)
    assert estimate(world, options={"steps": 60}).seconds == pytest.approx(40)
    assert estimate(world).notes == []


def test_only_the_last_hours_that_were_measured_count(world: World) -> None:
    measure(world, seconds=500, worker="slow")
    with world.sessions.begin() as session:
        session.execute(update(RateRow).values(hour=RateRow.hour - timedelta(hours=3)))
    measure(world)
    told = estimate(world).measured
    assert told is not None
    assert (told.items, told.items_per_second) == (100, pytest.approx(2))
    with world.sessions.begin() as session:
        session.execute(update(RateRow).values(hour=RateRow.hour - timedelta(days=15)))
    assert estimate(world).measured is None
    with world.sessions.begin() as session:
        rates.prune(session)
        assert session.query(RateRow).count() == 0


def test_what_waits_is_ahead_or_beside(world: World) -> None:
    measure(world)
    serve_with(world, 1)
    world.make_job(items=40, team="a")
    world.make_job(items=20, team="b")
    world.dispatch()
    told = estimate(world, items=20)
    assert (told.ahead.jobs, told.ahead.items, told.ahead.seconds) == (2, 60, pytest.approx(30))
    assert told.starts_at is not None
    assert told.ends_at is not None
    begins, ends = ((at - world.now()).total_seconds() for at in (told.starts_at, told.ends_at))
    assert begins == pytest.approx(30, abs=3), "its own forty, and the other's twenty beside them"
    assert ends == pytest.approx(40, abs=3)
    first = estimate(world, items=20, priority=5)
    assert (first.ahead.jobs, first.ahead.items) == (1, 20), "those of its team come behind it"
    others = estimate(world, team="c", items=20)
    assert (others.ahead.jobs, others.starts_at is not None) == (2, True)


def test_windows_and_deadlines_are_told(world: World) -> None:
    measure(world)
    serve_with(world, 1)
    window = window_around(world, 120, 240)
    told = estimate(world, window=window, deadline_at=world.now(plus_seconds=3 * 3600))
    assert (told.fits_window, told.fits_deadline) == (True, True)
    assert told.opens_at is not None
    assert told.starts_at == told.opens_at
    assert told.ends_at == told.opens_at + timedelta(seconds=60)
    long = estimate(world, items=30_000, window=window, deadline_at=world.now(plus_seconds=3 * 3600))
    assert (long.fits_window, long.fits_deadline) == (False, False)
    assert long.ends_at is not None
    assert long.ends_at - told.opens_at > timedelta(days=2), "15,000 s are more than two nights of two hours"


def test_a_quota_a_day_is_noted(world: World) -> None:
    measure(world)
    serve_with(world, 1)
    estimate(world)
    with world.sessions.begin() as session:
        quotas.set_quota(session, teams.get_team(session, "a").id, Quota(per_day=50))
    (note,) = estimate(world).notes
    assert "50 items a day, 0 of today's are used: it goes on over 2 midnights UTC" in note


def test_a_job_says_when_it_will_be_done_and_from_what(world: World) -> None:
    job_id = world.make_job(items=40)
    assert (view(world, job_id).eta_at, "nothing was measured" in (view(world, job_id).eta_basis or "")) == (None, True)
    measure(world)
    assert view(world, job_id).eta_basis == "no worker serves m now"
    serve_with(world, 2)
    told = view(world, job_id)
    assert told.eta_seconds == pytest.approx(10, abs=1)
    assert (told.eta_basis or "").startswith("if it has 2 workers for itself, at 4 items/s as measured until 20")
    for message in world.dispatch():
        shard = world.lease(message)
        assert shard is not None
        world.write(message, list(range(shard.first_index, shard.first_index + 4)))
        world.finish(message)
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).started_at = world.now(plus_seconds=-32)
    told = view(world, job_id)
    assert (told.eta_basis or "").startswith("at its own pace: 16 items in the last 32 seconds")
    assert told.eta_seconds == pytest.approx(48, abs=2)
    with world.sessions.begin() as session:
        jobs.get_job(session, job_id).started_at = world.now(plus_seconds=-7200)
        session.execute(update(ShardRow).where(ShardRow.state == "done", ShardRow.first_index < 8).values(
            finished_at=world.now(plus_seconds=-3600)))  # fmt: skip
    assert view(world, job_id).eta_basis == "at its own pace: 8 items in the last 15 minutes"
    world.pause(job_id)
    assert (view(world, job_id).eta_at, view(world, job_id).eta_basis) == (None, "it is paused")


def test_time_passes_in_the_window_only(world: World) -> None:
    measure(world)
    serve_with(world, 1)
    job_id = world.make_job(items=40, run_window=window_around(world, 120, 240))
    told = view(world, job_id)
    assert told.eta_at is not None
    assert told.eta_seconds is not None
    assert 7200 - 60 < told.eta_seconds <= 7200 + 20
    with world.sessions.begin() as session:
        quotas.set_quota(session, teams.get_team(session, "a").id, Quota(per_day=10))
    told = view(world, job_id)
    assert (told.eta_at, told.eta_basis) == (None, "the team's quota of 10 items a day decides")
