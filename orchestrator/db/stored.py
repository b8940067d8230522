"""How many bytes teams keep: measured below each upload and job, and summed up in their team's row.

Only of teams with a quota of bytes, as listing a store takes time and, with some, money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import case, func, select, true, update
from sqlalchemy.orm import Session

from orchestrator.db.tables import JobRow, OpenaiFileRow, TeamRow, UploadRow
from orchestrator.db.uploads import upload_prefix

FILLED_SECONDS = 600  # after an upload was made our own processes may put things there, without a link
TABLES: dict[str, type[UploadRow] | type[JobRow]] = {"upload": UploadRow, "job": JobRow}


@dataclass(frozen=True)
class Place:
    """A prefix in the store, by the row that says what lies there."""

    what: Literal["upload", "job"]
    id: str
    team_id: str
    prefix: str


def list_due(session: Session, now: datetime, *, limit: int) -> list[Place]:
    """What is to be measured by now, some of each team, those first that wait longest."""
    found: list[tuple[datetime, Place]] = []
    for what, row in TABLES.items():
        due = (
            select(row.id, row.measure_at)
            .where(row.team_id == TeamRow.id, row.measure_at <= now)
            .order_by(row.measure_at)
            .limit(limit)
            .lateral("due")
        )
        statement = select(TeamRow.id, due.c.id, due.c.measure_at).join(due, true())
        for team_id, row_id, at in session.execute(statement.where(TeamRow.quota_stored_bytes.is_not(None))):
            prefix = upload_prefix(team_id, row_id) if what == "upload" else f"jobs/{row_id}/"
            found.append((at, Place("upload" if what == "upload" else "job", row_id, team_id, prefix)))
    return [place for _, place in sorted(found, key=lambda pair: pair[0])[:limit]]


def note(session: Session, place: Place, num_bytes: int, *, looked_at: datetime, pause: timedelta) -> None:
    """What was found; the next look comes after the pause, and none where nothing more could come since this one."""
    if place.what == "upload":
        filled_until = UploadRow.created_at + timedelta(seconds=FILLED_SECONDS)
        changes = func.greatest(func.coalesce(UploadRow.writable_until, filled_until), filled_until) > looked_at
    else:
        changes = JobRow.finished_at.is_(None) | (JobRow.finished_at > looked_at)
    table = TABLES[place.what]
    again = case((changes, func.clock_timestamp() + pause))
    statement = update(table).where(table.id == place.id).values(stored_bytes=num_bytes, measure_at=again)
    session.execute(statement.execution_options(synchronize_session=False))


def list_outdated(session: Session, now: datetime, *, older_than: timedelta) -> Sequence[str]:
    """Ids of teams whose sum is that old."""
    is_old = TeamRow.stored_at.is_(None) | (TeamRow.stored_at < now - older_than)
    return session.scalars(select(TeamRow.id).where(TeamRow.quota_stored_bytes.is_not(None), is_old)).all()


def sum_up(session: Session, team_id: str) -> int:
    """Set a team's sum from its uploads, jobs and files; what is deleted counts until its objects are gone."""
    of_jobs = select(func.coalesce(func.sum(JobRow.stored_bytes), 0)).where(JobRow.team_id == team_id)
    of_uploads = select(func.coalesce(func.sum(UploadRow.stored_bytes), 0)).where(UploadRow.team_id == team_id)
    of_files = select(func.coalesce(func.sum(OpenaiFileRow.num_bytes), 0)).where(OpenaiFileRow.team_id == team_id)
    total = sum(int(session.scalars(statement).one()) for statement in (of_jobs, of_uploads, of_files))
    values = {"stored_bytes": total, "stored_at": func.clock_timestamp()}
    session.execute(update(TeamRow).where(TeamRow.id == team_id).values(**values))
    return total
