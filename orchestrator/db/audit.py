"""Who did what: one row for each call that changed something, written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from orchestrator.db.tables import AuditRow
from orchestrator.domain.errors import InvalidRequest
from orchestrator.telemetry import get_logger

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
    """Add a row to the running transaction, and a line to the log. Never put a secret into `data`."""
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
    fields = {"request_id": request_id, "team": team_id, "key": key_id} | data
    said = {name: value for name, value in fields.items() if value is not None}
    get_logger().info("audit", action=action, object_id=object_id, address=address, **said)


def list_audit(session: Session, *, team_id: str | None, before_id: int | None, limit: int) -> Sequence[AuditRow]:
    """The newest first; `before_id` is the id of the last one seen."""
    statement = select(AuditRow)
    if team_id is not None:
        statement = statement.where(AuditRow.team_id == team_id)
    if before_id is not None:
        statement = statement.where(AuditRow.id < before_id)
    return session.scalars(statement.order_by(AuditRow.id.desc()).limit(limit)).all()


def prune(session: Session, *, older_than_days: int, limit: int) -> int:
    """Forget the first rows of more than so many days ago; how many. Raises InvalidRequest for less than MIN_DAYS."""
    if older_than_days < MIN_DAYS:
        raise InvalidRequest(f"audit rows are kept for {MIN_DAYS} days at least, not {older_than_days}")
    age = func.make_interval(0, 0, 0, older_than_days)
    first = select(AuditRow.id).where(AuditRow.at < func.now() - age).order_by(AuditRow.id).limit(limit)
    return len(session.execute(delete(AuditRow).where(AuditRow.id.in_(first)).returning(AuditRow.id)).all())
