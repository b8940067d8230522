"""Teams are kept apart in one place: a confined session finds nothing of another team, whatever it asks."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import aliased

from orchestrator.db import (
    edits,
    events,
    jobs,
    openai_batches,
    openai_files,
    quotas,
    reuse,
    shards,
    teams,
    uploads,
    webhooks,
    workers,
)
from orchestrator.db.ownership import OWNED, SHARED, confine
from orchestrator.db.session import SessionFactory
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import JobRow, ShardRow, Table, WebhookRow
from orchestrator.domain.errors import NotFound
from orchestrator.domain.jobs import GenerateOptions, JobKind
from orchestrator.domain.shards import Part, ShardState

pytestmark = pytest.mark.services


def test_every_table_is_owned_or_shared() -> None:
    assert {mapper.class_ for mapper in Table.registry.mappers} == set(OWNED) | set(SHARED)
    assert not set(OWNED) & set(SHARED)


@pytest.fixture
def two_teams(sessions: SessionFactory) -> tuple[str, str]:
    """Two teams, each with a row in every owned table; their ids."""
    with sessions.begin() as session:
        workers.register_worker(session, "w", host="h", pid=1, models=["m"])
        return _team(session, "one"), _team(session, "two")


def _team(session: Any, name: str) -> str:
    team = teams.create_team(session, name)
    uploads.create_upload(session, team.id)
    job, _ = jobs.create_job(
        session,
        team.id,
        name=name,
        kind=JobKind.generate,
        model="m",
        options=GenerateOptions(),
        input={"lines": []},
        shard_items=1,
    )
    shards.add_shards(session, job.id, [shards.PlannedShard(0, 1, "k", 0, 0)])
    shards.insert_failures(session, job.id, [ItemFailure(0, "0", "code", "message", 1)])
    events.record(session, "job.running", job_id=job.id)
    file = openai_files.add_file(
        session, team.id, key=team.id, filename="f", purpose="batch", num_bytes=1, expires_seconds=None
    )
    batch = openai_batches.create_batch(
        session,
        team.id,
        endpoint="/v1/images/generations",
        input_file_id=file.id,
        upload_id=None,
        completion_window="24h",
        window_seconds=86_400,
        labels=None,
        output_seconds=None,
    )
    openai_batches.start(session, batch.id, job_id=job.id, model="m", num_refused=0)
    session.execute(insert(WebhookRow).values(id=name, team_id=team.id, url="u", secret="s"))
    webhooks.record_job_end(session, job.id)
    job.num_items = 1
    quotas.count_ended(session, [(job.id, 1)])
    edits.save_edit(session, job, 0, caption=None, approved=True, key_id="k")
    reuse.remember(session, job.id, Part(f"jobs/{job.id}/p", "digest", 1, ((0, 1),), ()), {uuid4(): 0})
    session.flush()
    session.execute(update(ShardRow).values(state=ShardState.leased, worker_id="w"))
    return team.id


def test_a_confined_session_reads_one_team(sessions: SessionFactory, two_teams: tuple[str, str]) -> None:
    with sessions() as everyone:
        all_rows = {table: len(everyone.scalars(select(table)).all()) for table in OWNED}
    for team_id in two_teams:
        with sessions() as session:
            confine(session, team_id)
            [job] = session.scalars(select(JobRow)).all()
            assert job.team_id == team_id
            for table in OWNED:
                found: list[Any] = list(session.scalars(select(table)).all())
                assert len(found) == all_rows[table] // 2 > 0
                assert {getattr(row, "job_id", job.id) for row in found} == {job.id}
                assert session.scalars(select(func.count()).select_from(table)).one() == len(found)
            other = aliased(JobRow)
            assert session.scalars(select(other.team_id)).all() == [team_id]
            below = select(ShardRow.job_id).subquery()
            assert session.scalars(select(below.c.job_id)).all() == [job.id]
            assert session.execute(select(ShardRow, JobRow).join(JobRow)).all() == [
                (shard, job) for shard in job_shards(session)
            ]


def job_shards(session: Any) -> list[ShardRow]:
    return list(session.scalars(select(ShardRow)).all())


def test_a_confined_session_changes_one_team(sessions: SessionFactory, two_teams: tuple[str, str]) -> None:
    mine, theirs = two_teams
    with sessions() as session:
        [their_job] = session.scalars(select(JobRow.id).where(JobRow.team_id == theirs)).all()
    with sessions.begin() as session:
        confine(session, mine)
        with pytest.raises(NotFound):
            jobs.get_job(session, their_job)
        assert session.get(JobRow, their_job) is None
        assert shards.list_shards(session, their_job) == []
        assert jobs.list_failures(session, their_job, after_index=-1, limit=10) == []
        assert events.list_events(session, their_job, after_id=0, limit=10) == []
        session.execute(update(JobRow).values(name="changed"), execution_options={"synchronize_session": False})
        session.execute(delete(ShardRow), execution_options={"synchronize_session": False})
    with sessions() as session:
        assert sorted(session.scalars(select(JobRow.name)).all()) == ["changed", "two"]
        assert session.scalars(select(ShardRow.job_id)).all() == [their_job]


def test_what_a_worker_holds_is_counted_over_all_teams(sessions: SessionFactory, two_teams: tuple[str, str]) -> None:
    with sessions() as session:
        confine(session, two_teams[0])
        assert [worker.shards for worker in workers.list_workers(session)] == [2]
