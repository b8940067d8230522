"""What people make of results: captions in other words, and approvals. Results themselves never change."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.tables import EditRow, JobRow
from orchestrator.domain.errors import Conflict, InvalidRequest, NotFound
from orchestrator.domain.jobs import JobKind

MAX_CAPTION_LENGTH = 20_000


def save_edit(
    session: Session, job: JobRow, index: int, *, caption: str | None, approved: bool, key_id: str
) -> EditRow | None:
    """Put an item's edit in place of the one before; None where nothing is left of it: no caption and no approval.

    Raises:
        NotFound: the job has no such item.
        Conflict: pictures have no caption to edit.
        InvalidRequest: the caption is blank or too long.
    """
    if not 0 <= index < job.num_items:
        raise NotFound(f"{job.id} has no item {index}; it has {job.num_items}")
    if caption is not None and job.kind != JobKind.caption:
        raise Conflict(f"{job.id} draws pictures: its items can be approved, and have no caption to edit")
    if caption is not None and (not caption.strip() or len(caption) > MAX_CAPTION_LENGTH or "\x00" in caption):
        raise InvalidRequest(f"a caption has 1 to {MAX_CAPTION_LENGTH} characters that are not all blank")
    if caption is None and not approved:
        session.execute(delete(EditRow).where(EditRow.job_id == job.id, EditRow.index == index))
        return None
    now = func.clock_timestamp()
    values = {
        "caption": caption and caption.strip(),
        "approved_at": now if approved else None,
        "edited_by": key_id,
        "at": now,
    }
    statement = insert(EditRow).values(job_id=job.id, index=index, **values)
    saved = statement.on_conflict_do_update(index_elements=[EditRow.job_id, EditRow.index], set_=values)
    return session.scalars(saved.returning(EditRow).execution_options(populate_existing=True)).one()


def list_edits(
    session: Session, job_id: str, *, after_index: int, limit: int, before_index: int | None = None
) -> Sequence[EditRow]:
    """A job's edits in item order, of the items between two indexes."""
    statement = select(EditRow).where(EditRow.job_id == job_id, EditRow.index > after_index)
    if before_index is not None:
        statement = statement.where(EditRow.index < before_index)
    return session.scalars(statement.order_by(EditRow.index).limit(limit)).all()


def count_edits(session: Session, job_id: str, *, at_most: int) -> tuple[int, int]:
    """(edited captions, approvals) among the first so many edits of a job."""
    some = select(EditRow.caption, EditRow.approved_at).where(EditRow.job_id == job_id).limit(at_most).subquery()
    counted = select(func.count(some.c.caption), func.count(some.c.approved_at))
    edited, approved = session.execute(counted).one()
    return edited, approved
