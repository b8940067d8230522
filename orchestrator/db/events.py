"""The row that every transition leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.db.tables import EventRow


def record(
    session: Session,
    type: str,
    *,
    job_id: str,
    shard_id: int | None = None,
    attempt: int | None = None,
    **data: Any,
) -> None:
    """Add an event to the running transaction; it becomes true together with its transition."""
    session.add(EventRow(type=type, job_id=job_id, shard_id=shard_id, attempt=attempt, data=data))


def list_events(
    session: Session, job_id: str, *, after_id: int, limit: int, older_than_seconds: float = 0
) -> Sequence[EventRow]:
    """A job's events in the order they happened.

    older_than_seconds: leave out those whose transactions began later; 0 takes all that are visible.
    """
    statement = select(EventRow).where(EventRow.job_id == job_id, EventRow.id > after_id)
    if older_than_seconds:
        age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_seconds)
        statement = statement.where(EventRow.at < func.clock_timestamp() - age)
    return session.scalars(statement.order_by(EventRow.id).limit(limit)).all()
