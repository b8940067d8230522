"""A job as its pages show it: the same pieces whether a page is loaded or follows the job live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.api.dependencies import Services
from orchestrator.api.job_views import encode_cursor, view_job, view_jobs
from orchestrator.dashboard import items
from orchestrator.dashboard.charts import BINS, Chart, draw_throughput
from orchestrator.dashboard.items import Rows, Seen
from orchestrator.dashboard.pictures import Picture, pictures_of
from orchestrator.db import edits, jobs, overview
from orchestrator.db.overview import MAX_COUNTED, FailureGroup
from orchestrator.db.session import database_now
from orchestrator.db.tables import EventRow, JobRow
from orchestrator.db.teams import Caller
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import JobView

JOBS_A_PAGE = 50
SHEET_ITEMS, EXAMPLES, EVENTS = 12, 3, 12
SAMPLE_ITEMS = 100  # of a sample, which is there to be looked at
DOWNLOADS = ("results.jsonl", "failures.jsonl", "manifest.json")


@dataclass(frozen=True)
class JobList:
    """A page of a team's jobs."""

    jobs: Sequence[JobView]
    next_cursor: str | None
    now: datetime


@dataclass(frozen=True)
class Card:
    """An item with its pictures."""

    seen: Seen
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Overview:
    """All that a job's page shows, but for its first results."""

    job: JobView
    now: datetime
    groups: Sequence[FailureGroup]
    events: Sequence[EventRow]
    chart: Chart | None
    num_edited: int
    num_approved: int
    max_counted: int = field(default=MAX_COUNTED)


def list_page(
    session: Session, team_id: str, *, state: JobState | None, before: tuple[datetime, str] | None
) -> JobList:
    found = jobs.list_jobs(session, team_id, state=state, before=before, limit=JOBS_A_PAGE + 1)
    shown = found[:JOBS_A_PAGE]
    next_cursor = encode_cursor(shown[-1]) if len(found) > len(shown) else None
    return JobList(view_jobs(session, shown), next_cursor, database_now(session))


def overview_of(session: Session, row: JobRow) -> Overview:
    """Of a job; the session sees its team."""
    job, now = view_job(session, row), database_now(session)
    num_edited, num_approved = edits.count_edits(session, row.id, at_most=MAX_COUNTED)
    return Overview(
        job,
        now,
        overview.failure_groups(session, row.id, examples=EXAMPLES) if job.items.failures else [],
        overview.last_events(session, row.id, limit=EVENTS),
        _chart(session, job, now),
        num_edited,
        num_approved,
    )


def _chart(session: Session, job: JobView, now: datetime) -> Chart | None:
    if job.started_at is None or not job.items.finished:
        return None
    end = job.finished_at or now
    counts = overview.throughput(session, job.id, job.started_at, end, bins=BINS)
    return draw_throughput(counts, job.started_at, end)


def sheet_rows(session: Session, row: JobRow) -> Rows:
    """What is needed of the first items, to read them without a session."""
    return items.rows_between(session, row, 0, SHEET_ITEMS if row.sample is None else SAMPLE_ITEMS)


def cards_of(rows: Rows, caller: Caller, services: Services) -> list[Card]:
    """The items with their pictures, from the store. Raises StoreError."""
    seen = items.see(rows, services.store)
    return [Card(each, pictures_of(each, rows.job.id, caller.team_id, services)) for each in seen]


def download_links(row: JobRow, services: Services) -> dict[str, str]:
    """Signed links to what an ended job made; none before."""
    if row.manifest_sha256 is None:
        return {}
    seconds = services.settings.presigned_url_seconds
    return {name: services.store.presign_get(f"jobs/{row.id}/{name}", expires_seconds=seconds) for name in DOWNLOADS}


def actions_of(job: JobView, scopes: frozenset[str]) -> dict[str, Any]:
    """What may be done with a job now, by somebody with these scopes."""
    can_write = "jobs:write" in scopes
    is_open = job.state in (JobState.accepted, JobState.running) and job.cancel_requested_at is None
    return {
        "pause": can_write and is_open and job.paused_at is None,
        "resume": can_write and is_open and job.paused_at is not None,
        "cancel": can_write and is_open,
        "retry": can_write and job.state.ended and job.items.failures > 0,
        "approve": can_write and job.waits_for_approval,
    }
