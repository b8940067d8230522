"""What whoever watches the system asks: how much is open, how old it is, and who is silent.

Every query looks at open work, at workers, or at Postgres' own books; none grows with what is finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, literal, select, text, union_all
from sqlalchemy.orm import Session, aliased

from orchestrator.db.tables import JobRow, ShardRow, WorkerRow
from orchestrator.db.workers import heartbeat_age, is_alive, list_workers, models_served
from orchestrator.domain.jobs import JobState
from orchestrator.domain.shards import ShardState

DISPATCHER = "janus dispatcher"  # what a dispatcher's connections are called
OPEN_JOBS = (JobState.accepted, JobState.running, JobState.finishing)
OPEN_SHARDS = (ShardState.waiting, ShardState.dispatched, ShardState.leased)
HOT_TABLES = ("jobs", "shards", "workers", "events", "failures", "keys")


@dataclass(frozen=True)
class SilentWorker:
    """A worker that stopped beating without a goodbye, and in whose place none has started on its host."""

    id: str
    host: str
    models: Sequence[str]
    seconds: float


def count_open_jobs(session: Session) -> dict[str, int]:
    """By state; a job that was paused counts as `paused`."""
    state = case((JobRow.paused_at.is_not(None), "paused"), else_=JobRow.state).label("state")
    statement = select(state, func.count()).where(JobRow.state.in_(OPEN_JOBS)).group_by(state)
    return {name: count for name, count in session.execute(statement)}  # noqa: C416


def count_open_shards(session: Session) -> dict[tuple[str, str], int]:
    """By model and state, of jobs that have not ended."""
    # By job first, each state by its own index: a million that wait are counted without their rows.
    of_states = [
        select(ShardRow.job_id, literal(state.value).label("state"), func.count().label("shards"))
        .where(ShardRow.state == state)
        .group_by(ShardRow.job_id)
        for state in OPEN_SHARDS
    ]
    of_jobs = union_all(*of_states).subquery()
    statement = (
        select(JobRow.model, of_jobs.c.state, func.sum(of_jobs.c.shards))
        .join(JobRow, JobRow.id == of_jobs.c.job_id)
        .group_by(JobRow.model, of_jobs.c.state)
    )
    return {(model, state): int(count) for model, state, count in session.execute(statement)}


def oldest_queued(session: Session) -> dict[str, datetime]:
    """By model, since when its oldest shard waits in the queue; publishing it again changes nothing."""
    statement = (
        select(JobRow.model, func.min(ShardRow.dispatched_at))
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(ShardRow.state == ShardState.dispatched)
        .group_by(JobRow.model)
    )
    return {model: since for model, since in session.execute(statement) if since is not None}


def count_workers(session: Session) -> Counter[tuple[str, str]]:
    """By model and state, `alive` or `silent`; those that said goodbye or were replaced do not count."""
    counts: Counter[tuple[str, str]] = Counter()
    for worker in list_workers(session):
        counts.update((model, "alive") for model in worker.models if worker.alive)
    for silent in list_silent_workers(session):
        counts.update((model, "silent") for model in silent.models)
    return counts


def oldest_heartbeats(session: Session) -> dict[str, float]:
    """Seconds since the oldest heartbeat among live workers, by model."""
    model = func.unnest(WorkerRow.models).label("model")
    statement = select(model, func.max(heartbeat_age())).where(is_alive()).group_by(model)
    return {model: float(age) for model, age in session.execute(statement)}


def count_unserved_jobs(session: Session) -> dict[str, int]:
    """Open jobs, neither paused nor being merged, by the model that no live worker serves."""
    statement = (
        select(JobRow.model, func.count())
        .where(JobRow.state.in_([JobState.accepted, JobState.running]), JobRow.paused_at.is_(None))
        .group_by(JobRow.model)
    )
    served = models_served(session)
    return {model: count for model, count in session.execute(statement) if model not in served}


def list_silent_workers(session: Session) -> list[SilentWorker]:
    """Of the last day, those that were seen last first."""
    later = aliased(WorkerRow)
    was_replaced = (
        select(later.id)
        .where(later.id != WorkerRow.id, later.host == WorkerRow.host, later.started_at > WorkerRow.heartbeat_at)
        .exists()
    )
    silent = (WorkerRow.stopped_at.is_(None), ~is_alive(), heartbeat_age() < 86_400, ~was_replaced)
    statement = (
        select(WorkerRow.id, WorkerRow.host, WorkerRow.models, heartbeat_age()).where(*silent).order_by(heartbeat_age())
    )
    return [SilentWorker(w, host, models, float(age)) for w, host, models, age in session.execute(statement)]


def list_unmergeable_jobs(session: Session) -> list[tuple[str, str]]:
    """(id, reason) of jobs whose results the finisher could not merge so far."""
    statement = select(JobRow.id, JobRow.state_reason).where(
        JobRow.state == JobState.finishing, JobRow.state_reason.is_not(None)
    )
    return [(job_id, reason) for job_id, reason in session.execute(statement.limit(10)) if reason]


def dispatcher_silence_seconds(session: Session) -> float | None:
    """How long ago a dispatcher last spoke to this database; None where none is connected."""
    statement = text(
        "SELECT extract(epoch FROM clock_timestamp() - max(state_change)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = :name"
    )
    seconds = session.execute(statement, {"name": DISPATCHER}).scalar_one()
    return None if seconds is None else float(seconds)


def count_dead_rows(session: Session) -> dict[str, int]:
    """By table, as Postgres estimates it."""
    statement = text("SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE relname = ANY(:tables)")
    return {row.relname: row.n_dead_tup for row in session.execute(statement, {"tables": list(HOT_TABLES)})}
