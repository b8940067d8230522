"""Quotas on a real Postgres and a real store: nothing more begins, nothing begun is cut, everything counts once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from orchestrator.api.job_views import view_job
from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, leases, quotas, teams, uploads
from orchestrator.db.queueing import Message
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import ShardRow, TeamDayRow, WorkerRow
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.meter import Meter
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.quotas import Quota, Use, day_of
from tests.fakes import ListBroker
from tests.integration.test_shards import World

pytestmark = pytest.mark.services


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    made = World(sessions, store)
    made.start_worker()
    return made


def limit(world: World, team: str, **limits: int) -> None:
    with world.sessions.begin() as session:
        quotas.set_quota(session, teams.get_team(session, team).id, Quota(**limits))


def use_of(world: World, team: str) -> Use:
    with world.sessions() as session:
        team_id = teams.get_team(session, team).id
        return quotas.uses_of(session, [team_id], day_of(world.now())).get(team_id, Use())


def begin(world: World, message: Message) -> range:
    """A worker takes a shard; its indexes."""
    shard = world.lease(message)
    assert shard is not None
    return range(shard.first_index, shard.first_index + shard.num_items)


def serve(world: World, message: Message) -> None:
    world.write(message, list(begin(world, message)))
    world.finish(message)


def reason(world: World, job_id: str) -> str:
    with world.sessions() as session:
        return view_job(session, jobs.get_job(session, job_id)).waiting_reason or ""


def begun(world: World) -> Counter[str]:
    with world.sessions() as session:
        rows = session.execute(
            select(ShardRow.job_id, ShardRow.num_items).where(ShardRow.state.in_(["dispatched", "leased"]))
        )
        counts: Counter[str] = Counter()
        for job_id, num_items in rows:
            counts[job_id] += num_items
        return counts


def test_no_more_is_in_flight_than_a_team_may_and_others_get_the_place(world: World) -> None:
    held, free = world.make_job(items=40, team="held"), world.make_job(items=40, team="free")
    world.start_worker()
    limit(world, "held", in_flight=6)
    messages = world.dispatch()
    assert begun(world) == {held: 4, free: 12}
    other = world.make_job(items=4, team="held")
    assert reason(world, other) == "the team's quota of 6 items in flight is used; it goes on as they are finished"
    for message in messages:
        begin(world, message)
    (mine,) = [message for message in messages if world.shard(message.shard_id).job_id == held]
    first = world.shard(mine.shard_id).first_index
    world.write(mine, [first, first + 1])
    assert use_of(world, "held").in_flight == 2
    world.dispatch()
    assert begun(world)[held] == 8, "two are unfinished of the first shard, and four of the second fit"


def test_a_day_has_its_items_and_the_next_one_has_them_anew(world: World) -> None:
    job_id = world.make_job(items=40)
    world.start_worker()
    limit(world, "a", per_day=10)
    messages = world.dispatch()
    assert len(messages) == 2, "eight items are begun, and four more would be too many"
    for message in messages:
        serve(world, message)
    assert use_of(world, "a") == Use(0, 8)
    assert world.dispatch() == []
    assert "10 items a day has no room for another shard (8 are used); it goes on at 00:00 UTC" in reason(world, job_id)
    tomorrow = world.now() + timedelta(days=1)
    world.dispatcher.run_once(tomorrow)
    assert len(world.broker.published) == 2
    limit(world, "a")
    assert len(world.dispatch()) == 2, "and without a quota there is only the queue's depth"


def test_every_item_counts_once_however_its_shard_went(world: World) -> None:
    """Released, silent, halved, cancelled while it ran, cancelled while it waited, taken from what the team had."""
    world.make_job(items=24)
    released, silent, halved, cancelled = world.dispatch()
    for message in (released, cancelled):
        world.write(message, list(begin(world, message))[:2])
    world.release(released)
    silent_items = list(world.lease(silent, seconds=1) and begin_of(world, silent))
    world.write(silent, silent_items[:3])
    halved_shard = world.lease(halved, seconds=1)
    assert halved_shard is not None
    with world.sessions.begin() as session:
        session.execute(update(ShardRow).where(ShardRow.id == halved.shard_id).values(crashes=5))
    world.reaper.run_once(world.now(plus_seconds=2))
    assert use_of(world, "a").today == 4, "what is begun is expected, what waits is not counted yet"
    again = {message.shard_id: message for message in world.dispatch()}
    for shard_id in (released.shard_id, silent.shard_id):
        message = again[shard_id]
        done = {index for part in world.shard(shard_id).parts for a, b in part["results"] for index in range(a, b)}
        world.write(message, [index for index in begin(world, message) if index not in done])
        world.finish(message)
    with world.sessions.begin() as session:  # half of what the last one has was another's before
        session.execute(update(ShardRow).where(ShardRow.id == cancelled.shard_id).values(num_reused=1))
        leases.cancel_shard_if_leased(session, cancelled.shard_id, cancelled.attempt)
    with world.sessions() as session:
        job_id = world.shard(released.shard_id).job_id
        left = session.scalars(select(ShardRow.id).where(ShardRow.state == "waiting")).all()
    with world.sessions.begin() as session:
        session.execute(update(ShardRow).where(ShardRow.id == left[0]).values(num_results=1))
    world.cancel(job_id)
    world.reaper.run_once(world.now())
    world.reaper.run_once(world.now())
    with world.sessions() as session:
        counted = session.scalars(select(TeamDayRow.num_items)).all()
    assert counted == [4 + 4 + 1 + 1]
    assert use_of(world, "a") == Use(0, 10)


def begin_of(world: World, message: Message) -> range:
    shard = world.shard(message.shard_id)
    return range(shard.first_index, shard.first_index + shard.num_items)


def test_two_dispatchers_begin_no_more_than_one(world: World) -> None:
    world.make_job(items=400)
    limit(world, "a", in_flight=10)
    other = Dispatcher(world.sessions, ListBroker(), queue_depth=4)
    for _ in range(3):
        world.dispatcher.run_once(world.now())
        other.run_once(world.now())
    assert use_of(world, "a").in_flight == 8


def test_bytes_are_measured_and_what_is_too_much_is_refused(world: World) -> None:
    job_id = world.make_job(items=4)
    limit(world, "a", stored_bytes=5000)
    with world.sessions.begin() as session:
        team = teams.get_team(session, "a")
        upload, _ = uploads.create_upload(session, team.id)
        uploads.expect_objects(session, upload.id, seconds=3600)
    meter = Meter(world.sessions, world.store, again_seconds=10)

    def stored() -> int:
        with world.sessions() as session:
            return teams.get_team(session, "a").stored_bytes

    assert meter.run_once(world.now()) == 2
    of_job = stored()
    assert of_job == sum(found.num_bytes for found in world.store.list(f"jobs/{job_id}/")) > 0
    world.store.put(f"uploads/{team.id}/{upload.id}/a.bin", b"x" * 5000)
    assert meter.run_once(world.now(plus_seconds=5)) == 0, "not all the time"
    assert meter.run_once(world.now(plus_seconds=11)) == 2
    assert stored() == of_job + 5000
    with world.sessions() as session, pytest.raises(InvalidRequest, match=r"keeps 5[0-9]+ bytes") as refused:
        quotas.require_space(session, team.id)
    assert refused.value.code == "quota_exceeded"
    with world.sessions.begin() as session:
        session.execute(update(uploads.UploadRow).values(writable_until=None, created_at=world.now(plus_seconds=-999)))
        jobs.get_job(session, job_id).finished_at = world.now(plus_seconds=-1)
    assert meter.run_once(world.now(plus_seconds=30)) == 2
    assert meter.run_once(world.now(plus_seconds=9999)) == 0, "nothing more can come"
    limit(world, "a")
    with world.sessions() as session:
        quotas.require_space(session, team.id)


def test_what_is_queued_for_a_model_that_nobody_serves_holds_up_no_other(world: World) -> None:
    """Its worker was switched off while its shards were in the queue: they wait, and the quota is the other model's."""
    world.make_job(items=8, team="held")
    limit(world, "held", in_flight=8)
    assert len(world.dispatch()) == 2
    assert use_of(world, "held") == Use(8, 8)
    with world.sessions.begin() as session:
        session.execute(update(WorkerRow).values(heartbeat_at=text("clock_timestamp() - interval '1 hour'")))
    assert use_of(world, "held") == Use()
