"""Whose rows a session sees: the one place that keeps teams apart.

`confine` ties a session to a team. From then on every SELECT, UPDATE and DELETE in it has the condition of OWNED for
each table that it reads, in subqueries and under aliases too: a query that forgot about teams finds nothing of others.
A job or a file that was
deleted is seen by nobody, though its row may still be there. The server's own loops use sessions that
are not confined.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, ORMExecuteState, Session, with_loader_criteria

from orchestrator.db.tables import (
    AuditRow,
    DeliveryRow,
    EditRow,
    EventRow,
    FailureRow,
    JobRow,
    KeyRow,
    ModelRow,
    OpenaiBatchRow,
    OpenaiFileRow,
    RateRow,
    ReusablePartRow,
    ShardRow,
    Table,
    TeamDayRow,
    TeamRow,
    UploadRow,
    WebhookRow,
    WorkerRow,
)

EVERY_TEAM = {"every_team": True}
"""Execution options of a query that counts over all teams, and shows nothing of any."""

OWNED: tuple[type[Table], ...] = (
    JobRow,
    UploadRow,
    ShardRow,
    FailureRow,
    EventRow,
    EditRow,
    ReusablePartRow,
    OpenaiFileRow,
    OpenaiBatchRow,
    WebhookRow,
    DeliveryRow,
    TeamDayRow,
)
# The scope `admin` guards teams, keys and the audit; of models, workers and rates everybody may know.
SHARED: tuple[type[Table], ...] = (TeamRow, KeyRow, ModelRow, WorkerRow, RateRow, AuditRow)


def confine(session: Session, team_id: str) -> None:
    """From now on the session sees the things of this team alone."""
    session.info["criteria"] = [
        with_loader_criteria(table, _owned_by(table, team_id), include_aliases=True) for table in OWNED
    ]


def add_owner(state: ORMExecuteState) -> None:
    """Add the owner to a statement of a confined session; listens to `do_orm_execute` of every session we make."""
    criteria = state.session.info.get("criteria")
    if criteria is None or state.execution_options.get("every_team") or state.is_column_load:
        return
    if state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(*criteria)


def _owned_by(table: type[Table], team_id: str) -> ColumnElement[bool]:
    owner: InstrumentedAttribute[str] | None = getattr(table, "team_id", None)
    if owner is not None:
        deleted_at: InstrumentedAttribute[datetime | None] | None = getattr(table, "deleted_at", None)
        return owner == team_id if deleted_at is None else (owner == team_id) & deleted_at.is_(None)
    job_id: InstrumentedAttribute[str] = table.job_id  # type: ignore[attr-defined]
    jobs = JobRow.__table__.c
    return job_id.in_(select(jobs.id).where(jobs.team_id == team_id, jobs.deleted_at.is_(None)))
