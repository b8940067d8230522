"""Jobs that go: marked first, so that nobody sees one with objects missing; its objects next, its rows last.

Every step may be repeated: a process that dies between two of them leaves a marked job, and the next round goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from orchestrator.db import audit, samples
from orchestrator.db.tables import EditRow, EventRow, FailureRow, JobRow, ReusablePartRow, ShardRow, UploadRow
from orchestrator.domain.errors import Conflict
from orchestrator.domain.jobs import ENDED, JobState

_NOW = func.clock_timestamp()
_MARK = {"deleted_at": _NOW, "idempotency_key": None}  # the key may make another job from now on


def request_delete(session: Session, job: JobRow) -> None:
    """Mark a job that has ended. Raises Conflict where it has not."""
    statement = update(JobRow).where(JobRow.id == job.id, JobRow.state.in_(ENDED), JobRow.deleted_at.is_(None))
    marked = statement.values(_MARK).returning(JobRow.id).execution_options(synchronize_session=False)
    if not session.execute(marked).all():
        raise Conflict(f"{job.id} is {job.state}; only a job that has ended can be deleted. Cancel it first.")


def mark_outdated(session: Session, *, keep_days: int, limit: int) -> None:
    """Mark jobs that ended more than so many days ago, the oldest first; not samples that wait for their approval."""
    expired = (
        select(JobRow.id)
        .where(JobRow.state.in_(ENDED), JobRow.deleted_at.is_(None), ~samples.WAITS)
        .where(JobRow.finished_at < func.now() - func.make_interval(0, 0, 0, keep_days))
        .order_by(JobRow.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = update(JobRow).where(JobRow.id.in_(expired)).values(_MARK).returning(JobRow.id, JobRow.team_id)
    for job_id, team_id in session.execute(statement.execution_options(synchronize_session=False)).all():
        audit.record(session, "job.outdated", job_id, team_id=team_id, address="the dispatcher", keep_days=keep_days)


def list_marked(session: Session, *, limit: int) -> Sequence[str]:
    """Ids of marked jobs that no retry is still to read: the oldest of each team, then the second oldest, and so on."""
    retry = aliased(JobRow)
    is_read = select(retry.id).where(retry.retry_of == JobRow.id, retry.state == JobState.accepted).exists()
    turn = func.row_number().over(partition_by=JobRow.team_id, order_by=JobRow.deleted_at)
    statement = select(JobRow.id).where(JobRow.deleted_at.is_not(None), ~is_read)
    return session.scalars(statement.order_by(turn, JobRow.deleted_at).limit(limit)).all()


def forget_upload(session: Session, upload_id: str) -> bool:
    """Delete an upload's row unless a job that was not deleted uses it; whether there is no such row now."""
    # A job that is being made holds the row; what it commits is seen by the next statement.
    session.execute(select(UploadRow.id).where(UploadRow.id == upload_id).with_for_update())
    users = select(JobRow.id).where(JobRow.upload_id == upload_id, JobRow.deleted_at.is_(None))
    if session.scalars(users.limit(1)).first() is not None:
        return False
    session.execute(delete(UploadRow).where(UploadRow.id == upload_id))
    return True


def delete_rows(session: Session, job_id: str, *, limit: int) -> bool:
    """Delete up to so many rows of each table of a marked job, its own row when no other is left; whether that went."""
    left = 0
    for table in (FailureRow, EventRow, EditRow, ReusablePartRow, ShardRow):
        key = [getattr(table, column.key) for column in table.__table__.primary_key]
        some = select(*key).where(table.job_id == job_id).limit(limit)
        statement = delete(table).where(tuple_(*key).in_(some)).execution_options(synchronize_session=False)
        left += len(session.execute(statement.returning(*key)).all()) == limit
    if not left:
        session.execute(delete(JobRow).where(JobRow.id == job_id, JobRow.deleted_at.is_not(None)))
    return not left
