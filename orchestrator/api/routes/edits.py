"""Edits: what people make of results. The results stay as they are; who exports them may ask for the edits too."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from orchestrator.api.dependencies import Audit, DbSession, Id, Reader, Writer
from orchestrator.api.routes.jobs import Index, Limit
from orchestrator.db import edits, jobs
from orchestrator.db.tables import EditRow
from orchestrator.schemas import EditPut, EditsPage, EditView

router = APIRouter(prefix="/v1/jobs", tags=["edits"])
ItemIndex = Annotated[int, Path(ge=0, le=2**62)]


@router.get("/{job_id}/edits", responses={404: {}})
def list_edits(
    job_id: Id, session: DbSession, caller: Reader, after_index: Index = -1, limit: Limit = 1000
) -> EditsPage:
    """Edited and approved items, in item order."""
    job = jobs.get_job(session, job_id)
    found = edits.list_edits(session, job.id, after_index=after_index, limit=limit)
    next_index = found[-1].index if len(found) == limit else None
    return EditsPage(edits=[_view_edit(row) for row in found], next_index=next_index)


@router.put("/{job_id}/edits/{index}", responses={404: {}, 409: {}})
def put_edit(
    job_id: Id, index: ItemIndex, body: EditPut, session: DbSession, caller: Writer, audit: Audit
) -> EditView | None:
    """Put an item's edit in place of the one before. Neither caption nor approval takes it away (`null`)."""
    job = jobs.get_job(session, job_id)
    saved = edits.save_edit(session, job, index, caption=body.caption, approved=body.approved, key_id=caller.key_id)
    audit.record("edit.saved", job.id, index=index, approved=body.approved)
    return None if saved is None else _view_edit(saved)


def _view_edit(row: EditRow) -> EditView:
    return EditView(
        index=row.index, caption=row.caption, approved_at=row.approved_at, edited_by=row.edited_by, at=row.at
    )
