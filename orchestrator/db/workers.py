"""Workers and the models they serve. A worker is alive while its heartbeat is young, and only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.ownership import EVERY_TEAM
from orchestrator.db.tables import JobRow, ModelRow, ShardRow, WorkerRow
from orchestrator.domain.shards import ShardState

ALIVE_SECONDS = 60  # three heartbeats


@dataclass(frozen=True)
class WorkerView:
    """A worker as others see it."""

    id: str
    host: str
    pid: int
    models: tuple[str, ...]
    started_at: datetime
    heartbeat_at: datetime
    alive: bool
    shards: int


def register_model(session: Session, name: str, *, family: str, revision: str, image_size: int | None = None) -> None:
    """A model that is served here; image_size: of what it draws, in pixels."""
    values = {
        "family": family,
        "revision": revision,
        "image_size": image_size,
        "registered_at": func.clock_timestamp(),
    }
    statement = insert(ModelRow).values(name=name, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[ModelRow.name], set_=values))


def list_models(session: Session) -> Sequence[ModelRow]:
    return session.scalars(select(ModelRow).order_by(ModelRow.name)).all()


def find_model(session: Session, name: str) -> ModelRow | None:
    return session.get(ModelRow, name)


def register_worker(session: Session, worker_id: str, *, host: str, pid: int, models: Sequence[str]) -> None:
    values = {
        "host": host,
        "pid": pid,
        "models": list(models),
        "heartbeat_at": func.clock_timestamp(),
        "stopped_at": None,
    }
    statement = insert(WorkerRow).values(id=worker_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[WorkerRow.id], set_=values))


def beat(session: Session, worker_id: str) -> None:
    session.execute(
        update(WorkerRow).where(WorkerRow.id == worker_id).values(heartbeat_at=func.clock_timestamp(), stopped_at=None)
    )


def mark_stopped(session: Session, worker_id: str) -> None:
    session.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(stopped_at=func.clock_timestamp()))


def list_workers(session: Session, *, seen_within_seconds: int = 86_400) -> list[WorkerView]:
    """Workers with a heartbeat in the last day, the alive ones first."""
    held = (
        select(ShardRow.worker_id, func.count().label("shards"))
        .where(ShardRow.state == ShardState.leased)
        .group_by(ShardRow.worker_id)
        .subquery()
    )
    alive = is_alive()
    statement = (
        select(WorkerRow, alive, func.coalesce(held.c.shards, 0))
        .outerjoin(held, held.c.worker_id == WorkerRow.id)
        .where(heartbeat_age() < seen_within_seconds)
        .order_by(alive.desc(), WorkerRow.started_at)
    )
    return [
        WorkerView(w.id, w.host, w.pid, tuple(w.models), w.started_at, w.heartbeat_at, is_alive, shards)
        for w, is_alive, shards in session.execute(statement, execution_options=EVERY_TEAM)
    ]


def models_served(session: Session) -> frozenset[str]:
    """Models that a live worker serves now; asked with every view of an open job, so not by way of a thousand rows."""
    return frozenset(session.scalars(select(func.unnest(WorkerRow.models)).where(is_alive()).distinct()))


def count_alive(session: Session, model: str) -> int:
    """Live workers that serve a model."""
    statement = select(func.count()).select_from(WorkerRow).where(WorkerRow.models.contains([model]), is_alive())
    return session.scalars(statement).one()


def has_dispatched_shards(session: Session, models: Sequence[str]) -> bool:
    """True while a shard of one of these models waits in a queue."""
    statement = select(ShardRow.id).join(JobRow, JobRow.id == ShardRow.job_id)
    found = statement.where(ShardRow.state == ShardState.dispatched, JobRow.model.in_(models)).limit(1)
    return session.scalars(found).first() is not None


def prune_workers(session: Session, *, older_than_days: int = 7) -> None:
    """Forget processes that are long gone."""
    session.execute(
        text("DELETE FROM workers WHERE heartbeat_at < now() - make_interval(days => :days)"), {"days": older_than_days}
    )


def is_alive() -> ColumnElement[bool]:
    """Of a worker's row."""
    return (heartbeat_age() < ALIVE_SECONDS) & WorkerRow.stopped_at.is_(None)


def heartbeat_age() -> ColumnElement[Any]:
    """Seconds since the last heartbeat."""
    return func.extract("epoch", func.clock_timestamp() - WorkerRow.heartbeat_at)
