"""What the morning wants to know: the jobs that ran since a time, and why items failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased

from orchestrator.db.tables import FailureRow, JobRow, ShardRow
from orchestrator.domain.jobs import ENDED, Counts


def newest_jobs(session: Session, since: datetime, *, limit: int) -> Sequence[JobRow]:
    """The team's jobs that were open at `since` or later, newest first."""
    statement = select(JobRow).where(_ran_since(since)).order_by(JobRow.created_at.desc(), JobRow.id.desc())
    return session.scalars(statement.limit(limit)).all()


def count_states(session: Session, since: datetime) -> dict[str, int]:
    statement = select(JobRow.state, func.count()).where(_ran_since(since)).group_by(JobRow.state)
    return dict(session.execute(statement).all())


def count_items(session: Session, since: datetime) -> Counts:
    """Over all of these jobs: of ended ones from their rows, of others from their shards."""
    of_jobs = select(
        func.coalesce(func.sum(JobRow.num_items), 0),
        func.coalesce(func.sum(JobRow.num_results), 0),
        func.coalesce(func.sum(JobRow.num_failures), 0),
        func.coalesce(func.sum(JobRow.num_cancelled), 0),
    ).where(_ran_since(since))
    of_shards = (
        select(func.coalesce(func.sum(ShardRow.num_results), 0), func.coalesce(func.sum(ShardRow.num_failures), 0))
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(_ran_since(since), JobRow.state.not_in(ENDED))
    )
    total, results, failures, cancelled = session.execute(of_jobs).one()
    live_results, live_failures = session.execute(of_shards).one()
    return Counts(int(total), int(results + live_results), int(failures + live_failures), int(cancelled))


def group_failures(session: Session, since: datetime) -> Sequence[tuple[int, FailureRow]]:
    """How many of each code, the most first, each with the first one of the newest job."""
    ran = select(JobRow.id).where(_ran_since(since))
    place = (FailureRow.job_id.desc(), FailureRow.index)
    ranked = (
        select(
            FailureRow,
            func.count().over(partition_by=FailureRow.code).label("count"),
            func.row_number().over(partition_by=FailureRow.code, order_by=place).label("place"),
        )
        .where(FailureRow.job_id.in_(ran))
        .subquery()
    )
    failure = aliased(FailureRow, ranked)
    statement = select(failure, ranked.c.count).where(ranked.c.place == 1)
    rows = session.execute(statement.order_by(ranked.c.count.desc(), ranked.c.code)).all()
    return [(row[1], row[0]) for row in rows]


def _ran_since(since: datetime) -> ColumnElement[bool]:
    return or_(JobRow.finished_at.is_(None), JobRow.finished_at >= since)
