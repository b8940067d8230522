"""Waiting shards to messages: whose turn it is, and what was published and never answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.shards import ShardState


@dataclass(frozen=True)
class Message:
    """What the broker carries: ids only."""

    shard_id: int
    attempt: int
    model: str


def models_with_waiting_shards(session: Session) -> Sequence[str]:
    return session.scalars(_ready(select(JobRow.model)).distinct()).all()


def count_dispatched(session: Session, model: str) -> int:
    statement = select(func.count()).select_from(ShardRow).join(JobRow)
    return session.scalars(statement.where(ShardRow.state == ShardState.dispatched, JobRow.model == model)).one()


def dispatch_waiting(session: Session, model: str, *, limit: int) -> list[Message]:
    """waiting -> dispatched for the next `limit` shards, and count their attempts.

    Teams take turns: a team's n-th next shard comes after every team's (n-1)-th, and what a team has in flight counts
    as turns it has had. Within a team: priority, then the older job, then item order.
    """
    in_flight = (
        select(JobRow.team_id, func.count().label("shards"))
        .join(ShardRow, ShardRow.job_id == JobRow.id)
        .where(ShardRow.state.in_([ShardState.dispatched, ShardState.leased]), JobRow.model == model)
        .group_by(JobRow.team_id)
        .subquery()
    )
    order_within_team = (JobRow.priority.desc(), JobRow.created_at, JobRow.id, ShardRow.first_index)
    turn = func.row_number().over(partition_by=JobRow.team_id, order_by=order_within_team)
    queue = (
        _ready(select(ShardRow.id, (turn + func.coalesce(in_flight.c.shards, 0)).label("turn"), JobRow.created_at))
        .outerjoin(in_flight, in_flight.c.team_id == JobRow.team_id)
        .where(JobRow.model == model)
        .subquery()
    )
    next_ids = select(queue.c.id).order_by(queue.c.turn, queue.c.created_at).limit(limit)
    claimed = (
        select(ShardRow.id)
        .where(ShardRow.id.in_(next_ids), ShardRow.state == ShardState.waiting)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(ShardRow)
        .where(ShardRow.id.in_(claimed), ShardRow.state == ShardState.waiting)
        .values(
            state=ShardState.dispatched,
            attempt=ShardRow.attempt + 1,
            dispatched_at=func.clock_timestamp(),
            published_at=func.clock_timestamp(),
            not_before=None,
        )
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return [Message(shard_id, attempt, model) for shard_id, attempt in sorted(rows)]


def take_unanswered(session: Session, model: str, *, published_before: datetime) -> list[Message]:
    """Dispatched shards that nobody leased since; marks them published again."""
    of_model = select(JobRow.id).where(JobRow.model == model, JobRow.state == JobState.running)
    statement = (
        update(ShardRow)
        .where(
            ShardRow.state == ShardState.dispatched,
            ShardRow.published_at < published_before,
            ShardRow.job_id.in_(of_model),
        )
        .values(published_at=func.clock_timestamp())
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return [Message(shard_id, attempt, model) for shard_id, attempt in sorted(rows)]


def models_with_dispatched_shards(session: Session) -> Sequence[str]:
    statement = select(JobRow.model).join(ShardRow).where(ShardRow.state == ShardState.dispatched).distinct()
    return session.scalars(statement).all()


def _ready(statement: Select[Any]) -> Select[Any]:
    """Shards that may be dispatched now."""
    return (
        statement.select_from(ShardRow)
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(
            ShardRow.state == ShardState.waiting,
            JobRow.state == JobState.running,
            JobRow.paused_at.is_(None),
            JobRow.cancel_requested_at.is_(None),
            ShardRow.not_before.is_(None) | (ShardRow.not_before <= func.clock_timestamp()),
        )
    )
