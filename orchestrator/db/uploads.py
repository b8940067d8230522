"""Uploads: a prefix in the store that one team may write below."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchestrator.db.tables import UploadRow
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import new_id


def create_upload(session: Session, team_id: str, *, idempotency_key: str | None = None) -> tuple[UploadRow, bool]:
    """Make an upload, or find the one that this idempotency key made: (upload, created)."""
    upload = UploadRow(id=new_id("upl"), team_id=team_id, idempotency_key=idempotency_key)
    try:
        with session.begin_nested():
            session.add(upload)
    except IntegrityError:
        same = (UploadRow.team_id == team_id) & (UploadRow.idempotency_key == idempotency_key)
        return session.scalars(select(UploadRow).where(same)).one(), False
    session.refresh(upload)
    return upload, True


def get_upload(session: Session, team_id: str, upload_id: str, *, hold: bool = False) -> UploadRow:
    """Raises NotFound for another team's upload too. With `hold` nobody deletes it before the transaction ends."""
    statement = select(UploadRow).where(UploadRow.id == upload_id, UploadRow.team_id == team_id)
    found = session.scalars(statement.with_for_update(read=True) if hold else statement).first()
    if found is None:
        raise NotFound(f"there is no upload {upload_id!r}")
    return found


def expect_objects(session: Session, upload_id: str, *, seconds: int) -> None:
    """Objects may come for so long: their bytes are measured until then. Written once a minute at most."""
    until = func.now() + timedelta(seconds=seconds)
    is_news = UploadRow.writable_until.is_(None) | (UploadRow.writable_until < until - timedelta(minutes=1))
    measure_at = func.coalesce(UploadRow.measure_at, func.now())
    statement = update(UploadRow).where(UploadRow.id == upload_id, is_news)
    session.execute(
        statement.values(writable_until=until, measure_at=measure_at).execution_options(synchronize_session=False)
    )


def upload_prefix(team_id: str, upload_id: str) -> str:
    return f"uploads/{team_id}/{upload_id}/"
