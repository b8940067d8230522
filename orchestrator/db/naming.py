"""Which objects of the store rows name, or may yet name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from orchestrator.db.tables import JobRow, OpenaiBatchRow, OpenaiFileRow, ShardRow, UploadRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.openai_batches import OPEN


def orphans_of(session: Session, owner: Sequence[str], keys: Sequence[str]) -> set[str]:
    """Those of `keys` that no row names and none can name any more.

    Args:
        owner: `jobs`, id or `uploads`, team, id or `files`, team: what the path of each of the keys begins with.
    """
    match owner:
        case ["uploads", team_id, upload_id]:
            row = select(UploadRow.id).where(UploadRow.id == upload_id, UploadRow.team_id == team_id)
            return set() if session.scalars(row).first() is not None else set(keys)
        case ["files", team_id]:
            return _orphans_of_files(session, team_id, keys)
        case ["jobs", job_id]:
            return _orphans_of_job(session, job_id, keys)
        case _:
            return set()


def _orphans_of_files(session: Session, team_id: str, keys: Sequence[str]) -> set[str]:
    """Files of OpenAI clients whose row never came; not those of a batch that is still to name them."""
    named = set(session.scalars(select(OpenaiFileRow.key).where(OpenaiFileRow.key.in_(keys))))
    batches = select(OpenaiBatchRow.id).where(OpenaiBatchRow.team_id == team_id, OpenaiBatchRow.state.in_(OPEN))
    open_batches = tuple(f"files/{team_id}/{batch_id}-" for batch_id in session.scalars(batches))
    return {key for key in keys if key not in named and not key.startswith(open_batches)}


def _orphans_of_job(session: Session, job_id: str, keys: Sequence[str]) -> set[str]:
    job = session.get(JobRow, job_id)
    if job is None:
        return set(keys)
    if not JobState(job.state).ended or job.deleted_at is not None:
        return set()  # its rows may yet name them; or the cleaner is at it
    # What else lies there, images and what the finisher wrote, stays for as long as the job.
    candidates = {key for key in keys if key.startswith((f"jobs/{job_id}/items/", f"jobs/{job_id}/shards/"))}
    return candidates - _named_by_shards(session, job_id, candidates)


def _named_by_shards(session: Session, job_id: str, keys: set[str]) -> set[str]:
    """Of a job's items objects and parts, those that its shards name; a half names parts that its other half wrote."""
    items = select(ShardRow.items_key).where(ShardRow.job_id == job_id)
    named = set(session.scalars(items.where(ShardRow.items_key.in_(keys))))
    writers = {int(key.split("/")[3]) for key in keys if key.split("/")[2] == "shards" and key.split("/")[3].isdigit()}
    part = func.jsonb_array_elements(ShardRow.parts).column_valued("part", joins_implicitly=True)
    parts = (
        select(part.op("->>")("key"))
        .select_from(ShardRow)
        .where(ShardRow.job_id == job_id, ShardRow.items_key.in_(items.where(ShardRow.id.in_(writers))))
    )
    return named | set(session.scalars(parts)) & keys


def list_unused_uploads(session: Session, before: datetime, *, after_id: str, limit: int) -> Sequence[UploadRow]:
    """Uploads that were made before then and that no job names, in the order of their ids."""
    is_used = select(JobRow.id).where(JobRow.upload_id == UploadRow.id).exists()
    statement = select(UploadRow).where(UploadRow.created_at < before, UploadRow.id > after_id, ~is_used)
    return session.scalars(statement.order_by(UploadRow.id).limit(limit)).all()


def forget_unused_upload(session: Session, upload_id: str) -> bool:
    """Delete an upload's row unless a job names it by now; whether it was deleted."""
    session.execute(select(UploadRow.id).where(UploadRow.id == upload_id).with_for_update())
    if session.scalars(select(JobRow.id).where(JobRow.upload_id == upload_id).limit(1)).first() is not None:
        return False
    return bool(session.execute(delete(UploadRow).where(UploadRow.id == upload_id).returning(UploadRow.id)).all())
