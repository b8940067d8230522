"""OpenAI batches: each transition is one UPDATE that names the states it leaves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from orchestrator.db.tables import JobRow, OpenaiBatchRow
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.jobs import ENDED
from orchestrator.domain.openai_batches import MAX_ERRORS, OPEN, OpenaiState

_NOW = func.clock_timestamp()


def create_batch(
    session: Session,
    team_id: str,
    *,
    endpoint: str,
    input_file_id: str,
    upload_id: str | None,
    completion_window: str,
    window_seconds: int,
    labels: dict[str, str] | None,
    output_seconds: int | None,
) -> OpenaiBatchRow:
    batch = OpenaiBatchRow(
        id=new_id("batch"),
        team_id=team_id,
        endpoint=endpoint,
        input_file_id=input_file_id,
        upload_id=upload_id,
        completion_window=completion_window,
        labels=labels,
        output_seconds=output_seconds,
        state=OpenaiState.validating,
        expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, window_seconds),
    )
    session.add(batch)
    session.flush()
    session.refresh(batch)
    return batch


def get_batch(session: Session, batch_id: str) -> OpenaiBatchRow:
    """Raises NotFound, in a confined session for another team's batch too."""
    batch = session.scalars(select(OpenaiBatchRow).where(OpenaiBatchRow.id == batch_id)).first()
    if batch is None:
        raise NotFound(f"there is no batch {batch_id!r}")
    return batch


def list_batches(session: Session, *, after: str | None, limit: int) -> Sequence[OpenaiBatchRow]:
    """Newest first; `after` is the id of the last one seen. Raises NotFound where there is none of that id."""
    statement = select(OpenaiBatchRow)
    if after is not None:
        last = get_batch(session, after)
        place = tuple_(OpenaiBatchRow.created_at, OpenaiBatchRow.id)
        statement = statement.where(place < tuple_(last.created_at, last.id))
    ordered = statement.order_by(OpenaiBatchRow.created_at.desc(), OpenaiBatchRow.id.desc())
    return session.scalars(ordered.limit(limit)).all()


def count_unread(session: Session) -> int:
    """Batches that have yet to become a job."""
    statement = select(func.count()).select_from(OpenaiBatchRow)
    return session.scalars(statement.where(OpenaiBatchRow.state == OpenaiState.validating)).one()


def request_cancel(session: Session, batch: OpenaiBatchRow) -> None:
    """validating or in_progress -> cancelling. Asking twice is harmless; raises Conflict where it has ended."""
    if batch.state in (OpenaiState.cancelling, OpenaiState.cancelled):
        return
    leaves = (OpenaiState.validating, OpenaiState.in_progress)
    if not _move(session, batch.id, leaves, OpenaiState.cancelling, cancelling_at=_NOW):
        raise Conflict(f"{batch.id} is {batch.state}; only a batch that is validated or in progress can be cancelled")


def list_unread(session: Session) -> Sequence[str]:
    """Ids of batches to be validated: the oldest of each team, then the second oldest, and so on."""
    turn = func.row_number().over(partition_by=OpenaiBatchRow.team_id, order_by=OpenaiBatchRow.created_at)
    unread = select(OpenaiBatchRow.id).where(OpenaiBatchRow.state == OpenaiState.validating)
    return session.scalars(unread.order_by(turn, OpenaiBatchRow.created_at)).all()


def keep_upload(session: Session, batch_id: str, upload_id: str) -> None:
    """Note the upload that the batch's own objects lie in."""
    statement = update(OpenaiBatchRow).where(OpenaiBatchRow.id == batch_id, OpenaiBatchRow.upload_id.is_(None))
    session.execute(statement.values(upload_id=upload_id).execution_options(synchronize_session=False))


def start(session: Session, batch_id: str, *, job_id: str, model: str, num_refused: int) -> bool:
    """validating -> in_progress; False where it was cancelled meanwhile."""
    values = {"job_id": job_id, "model": model, "num_refused": num_refused, "in_progress_at": _NOW}
    return _move(session, batch_id, (OpenaiState.validating,), OpenaiState.in_progress, **values)


def fail(
    session: Session,
    batch_id: str,
    errors: Sequence[dict[str, Any]],
    *,
    num_refused: int = 0,
    error_file_id: str | None = None,
) -> bool:
    """validating -> failed: nothing of it became an item."""
    values = {"errors": list(errors[:MAX_ERRORS]), "num_refused": num_refused, "error_file_id": error_file_id}
    return _move(session, batch_id, (OpenaiState.validating,), OpenaiState.failed, failed_at=_NOW, **values)


def list_to_finish(session: Session) -> Sequence[str]:
    """Ids of batches that have no job to wait for (any more): the oldest of each team first."""
    running = select(JobRow.id).where(JobRow.id == OpenaiBatchRow.job_id, JobRow.state.not_in(ENDED)).exists()
    ready = OpenaiBatchRow.state.in_(OPEN - {OpenaiState.validating}) & ~running
    turn = func.row_number().over(partition_by=OpenaiBatchRow.team_id, order_by=OpenaiBatchRow.created_at)
    return session.scalars(select(OpenaiBatchRow.id).where(ready).order_by(turn, OpenaiBatchRow.created_at)).all()


def begin_finalizing(session: Session, batch_id: str) -> None:
    """in_progress or cancelling -> finalizing."""
    leaves = (OpenaiState.in_progress, OpenaiState.cancelling)
    _move(session, batch_id, leaves, OpenaiState.finalizing, finalizing_at=_NOW)


def finish(
    session: Session,
    batch_id: str,
    state: OpenaiState,
    *,
    output_file_id: str | None,
    error_file_id: str | None,
    errors: Sequence[dict[str, Any]] = (),
) -> bool:
    """finalizing -> an end."""
    values = {"output_file_id": output_file_id, "error_file_id": error_file_id, "errors": list(errors)}
    return _move(session, batch_id, (OpenaiState.finalizing,), state, **values, **{f"{state}_at": _NOW})


def forget_old(session: Session, *, keep_days: int, limit: int) -> int:
    """Delete the rows of batches that were made more than so many days ago and have ended; how many."""
    old = OpenaiBatchRow.created_at < _NOW - func.make_interval(0, 0, 0, keep_days)
    some = select(OpenaiBatchRow.id).where(old, OpenaiBatchRow.state.not_in(OPEN)).limit(limit)
    statement = delete(OpenaiBatchRow).where(OpenaiBatchRow.id.in_(some)).returning(OpenaiBatchRow.id)
    return len(session.execute(statement.execution_options(synchronize_session=False)).all())


def _move(session: Session, batch_id: str, leaves: Collection[OpenaiState], state: OpenaiState, **values: Any) -> bool:
    statement = (
        update(OpenaiBatchRow)
        .where(OpenaiBatchRow.id == batch_id, OpenaiBatchRow.state.in_(leaves))
        .values(state=state, **values)
        .returning(OpenaiBatchRow.id)
    )
    return session.execute(statement.execution_options(synchronize_session=False)).first() is not None
