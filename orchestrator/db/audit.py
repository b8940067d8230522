"""Who did what: one row for each call that changed something, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from orchestrator.db.tables import AuditRow
from orchestrator.domain.errors import InvalidRequest

MIN_DAYS = 90  # the table's trigger refuses to let younger rows go


def record(
    session: Session,
    action: str,
    object_id: str,
    *,
    address: str,
    team_id: str | None = None,
    key_id: str | None = None,
    request_id: str | None = None,
    **data: Any,
) -> None:
    """Add a row to the running transaction. Never put a secret into `data`."""
    session.add(
        AuditRow(
            action=action,
            object_id=object_id,
            address=address,
            team_id=team_id,
            key_id=key_id,
            request_id=request_id,
            data=data,
        )
    )


def list_audit(session: Session, *, team_id: str | None, before_id: int | None, limit: int) -> Sequence[AuditRow]:
    """The newest first; `before_id` is the id of the last one seen."""
    statement = select(AuditRow)
    if team_id is not None:
        statement = statement.where(AuditRow.team_id == team_id)
    if before_id is not None:
        statement = statement.where(AuditRow.id < before_id)
    return session.scalars(statement.order_by(AuditRow.id.desc()).limit(limit)).all()


def prune(session: Session, *, older_than_days: int) -> int:
    """Forget rows of more than so many days ago; how many. Raises InvalidRequest for less than MIN_DAYS."""
    if older_than_days < MIN_DAYS:
        raise InvalidRequest(f"audit rows are kept for {MIN_DAYS} days at least, not {older_than_days}")
    age = func.make_interval(0, 0, 0, older_than_days)
    statement = delete(AuditRow).where(AuditRow.at < func.now() - age)
    return len(session.execute(statement.returning(AuditRow.id)).all())
