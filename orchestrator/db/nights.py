"""Nights that are over and not told yet. Marking one as told and writing its report is one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.db import webhooks
from orchestrator.db.shards import IN_FLIGHT
from orchestrator.db.tables import JobRow
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.windows import Opening


def windows_of_running_jobs(session: Session) -> Sequence[str]:
    """Few, however many jobs share them."""
    statement = select(JobRow.run_window).where(JobRow.state == JobState.running, JobRow.run_window.is_not(None))
    return [window for window in session.scalars(statement.distinct()) if window is not None]


def list_untold(session: Session, window: str, night: Opening, *, waits: bool, limit: int) -> Sequence[JobRow]:
    """Jobs that could run in a night and whose end of it is not told.

    Args:
        waits: leave out those of which a worker still finishes something.
    """
    statement = select(JobRow).where(
        JobRow.state == JobState.running,
        JobRow.run_window == window,
        JobRow.reported_at.is_(None) | (JobRow.reported_at < night.closes_at),
        JobRow.started_at < night.closes_at,
    )
    if waits:
        statement = statement.where(JobRow.id.not_in(IN_FLIGHT))
    return session.scalars(statement.order_by(JobRow.id).limit(limit)).all()


def tell(session: Session, job: JobRow, counts: Counts, night: Opening) -> bool:
    """Write the report of a night that is over; False where another process has."""
    statement = (
        update(JobRow)
        .where(JobRow.id == job.id, JobRow.state == JobState.running)
        .where(JobRow.reported_at.is_(None) | (JobRow.reported_at < night.closes_at))
        .values(reported_at=night.closes_at, reported_items=counts.finished)
    )
    marked = statement.returning(JobRow.id).execution_options(synchronize_session=False)
    if session.execute(marked).first() is None:
        return False
    webhooks.record_night(session, job, night, counts, until=night.closes_at)
    return True
