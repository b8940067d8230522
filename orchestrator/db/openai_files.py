"""Files of OpenAI clients: rows first seen when their object is there, marked before it goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from orchestrator.db.tables import OpenaiBatchRow, OpenaiFileRow
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.openai_batches import OPEN

_NOW = func.clock_timestamp()


def file_prefix(team_id: str) -> str:
    return f"files/{team_id}/"


def add_file(
    session: Session,
    team_id: str,
    *,
    key: str,
    filename: str,
    purpose: str,
    num_bytes: int,
    expires_seconds: int | None,
    file_id: str | None = None,
) -> OpenaiFileRow:
    """A file whose object is in the store."""
    expires_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, expires_seconds) if expires_seconds else None
    file = OpenaiFileRow(
        id=file_id or new_id("file"),
        team_id=team_id,
        key=key,
        filename=filename,
        purpose=purpose,
        num_bytes=num_bytes,
        expires_at=expires_at,
    )
    session.add(file)
    session.flush()
    session.refresh(file)
    return file


def find_file(session: Session, file_id: str) -> OpenaiFileRow | None:
    """One that is there for clients: neither deleted nor expired."""
    statement = select(OpenaiFileRow).where(OpenaiFileRow.id == file_id, _is_there())
    return session.scalars(statement).first()


def get_file(session: Session, file_id: str) -> OpenaiFileRow:
    """Raises NotFound, in a confined session for another team's file too."""
    file = find_file(session, file_id)
    if file is None:
        raise NotFound(f"there is no file {file_id!r}")
    return file


def list_files(
    session: Session, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
) -> Sequence[OpenaiFileRow]:
    """`after` is the id of the last one seen. Raises NotFound where there is none of that id."""
    statement = select(OpenaiFileRow).where(_is_there())
    if purpose is not None:
        statement = statement.where(OpenaiFileRow.purpose == purpose)
    place = tuple_(OpenaiFileRow.created_at, OpenaiFileRow.id)
    if after is not None:
        last = get_file(session, after)
        seen = tuple_(last.created_at, last.id)
        statement = statement.where(place < seen if newest_first else place > seen)
    order = (OpenaiFileRow.created_at, OpenaiFileRow.id)
    ordered = statement.order_by(*(column.desc() if newest_first else column for column in order))
    return session.scalars(ordered.limit(limit)).all()


def mark_deleted(session: Session, file: OpenaiFileRow) -> None:
    """No client sees it from now on; its object goes as soon as it can."""
    file.deleted_at = _NOW
    session.flush()


def mark_expired(session: Session, now: datetime, *, keep_days: int, limit: int) -> None:
    """Mark files whose time is over: their own, or that of JANUS_KEEP_DAYS unless a batch still reads them."""
    over = OpenaiFileRow.expires_at < now
    if keep_days:
        is_read = select(OpenaiBatchRow.id).where(
            OpenaiBatchRow.input_file_id == OpenaiFileRow.id, OpenaiBatchRow.state.in_(OPEN)
        )
        over = or_(over, (OpenaiFileRow.created_at < now - func.make_interval(0, 0, 0, keep_days)) & ~is_read.exists())
    some = select(OpenaiFileRow.id).where(OpenaiFileRow.deleted_at.is_(None), over).limit(limit)
    statement = update(OpenaiFileRow).where(OpenaiFileRow.id.in_(some)).values(deleted_at=_NOW)
    session.execute(statement.execution_options(synchronize_session=False))


def list_marked(session: Session, *, limit: int) -> Sequence[OpenaiFileRow]:
    statement = select(OpenaiFileRow).where(OpenaiFileRow.deleted_at.is_not(None))
    return session.scalars(statement.order_by(OpenaiFileRow.deleted_at).limit(limit)).all()


def delete_rows(session: Session, file_ids: Sequence[str]) -> None:
    """For files whose objects are gone."""
    statement = delete(OpenaiFileRow).where(OpenaiFileRow.id.in_(file_ids), OpenaiFileRow.deleted_at.is_not(None))
    session.execute(statement.execution_options(synchronize_session=False))


def _is_there() -> ColumnElement[bool]:
    unexpired = or_(OpenaiFileRow.expires_at.is_(None), OpenaiFileRow.expires_at > _NOW)
    return OpenaiFileRow.deleted_at.is_(None) & unexpired
