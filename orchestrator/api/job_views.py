"""Jobs as clients see them: counts, rate, and a sentence on why one waits."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.api.dependencies import Services
from orchestrator.db import jobs, workers
from orchestrator.db.session import database_now
from orchestrator.db.shards import parts_of
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.shards import ShardState
from orchestrator.schemas import JobItems, JobView, PartsPage, PartView


def view_job(session: Session, job: JobRow) -> JobView:
    return view_jobs(session, [job])[0]


def view_jobs(session: Session, found: Sequence[JobRow]) -> list[JobView]:
    """Views with live counts; two queries however many jobs."""
    counts = jobs.counts_of(session, found)
    live = any(not JobState(job.state).ended for job in found)
    served = workers.models_served(session) if live else frozenset()
    now = database_now(session)
    return [_view(job, counts[job.id], now, served) for job in found]


def _view(job: JobRow, counts: Counts, now: datetime, served: frozenset[str]) -> JobView:
    rate = _items_per_second(job, counts, now)
    left = counts.total - counts.finished
    running = job.state == JobState.running and job.paused_at is None
    return JobView(
        id=job.id,
        name=job.name,
        kind=job.kind,
        model=job.model,
        options=job.options,
        state=job.state,
        state_reason=job.state_reason,
        waiting_reason=_waiting_reason(job, counts, served),
        items=JobItems(
            total=counts.total,
            results=counts.results,
            failures=counts.failures,
            cancelled=counts.cancelled,
            reused=counts.reused,
        ),
        items_per_second=rate,
        eta_seconds=left / rate if rate and running else None,
        priority=job.priority,
        reuse=job.reuse,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        paused_at=job.paused_at,
        cancel_requested_at=job.cancel_requested_at,
        manifest_sha256=job.manifest_sha256,
    )


def _items_per_second(job: JobRow, counts: Counts, now: datetime) -> float | None:
    """Finished items over the time since the job began to run, waiting included."""
    if job.started_at is None or not counts.finished:
        return None
    seconds = ((job.finished_at or now) - job.started_at).total_seconds()
    return counts.finished / seconds if seconds > 0 else None


def _waiting_reason(job: JobRow, counts: Counts, served: frozenset[str]) -> str | None:
    """Why nothing comes out right now, from real state; None where something does or the job has ended."""
    if JobState(job.state).ended:
        return None
    if job.cancel_requested_at is not None:
        return "it is being cancelled; workers drop what they hold within seconds"
    if job.paused_at is not None:
        return f"it was paused at {job.paused_at:%Y-%m-%d %H:%M} UTC; `janus jobs resume {job.id}` goes on"
    if job.state == JobState.accepted:
        return "its input is being read"
    if job.state == JobState.finishing:
        return job.state_reason or "its results are being merged"
    if job.model not in served:
        return f"no worker serves {job.model} now; start one with `janus worker --model {job.model}`"
    if not counts.finished:
        return "its first items are queued or being worked on"
    return None


def view_parts(job: JobRow, found: Sequence[ShardRow], from_index: int, limit: int, services: Services) -> PartsPage:
    """Parts up to the first shard that is still open."""
    parts: list[PartView] = []
    next_index, seconds = from_index, services.settings.presigned_url_seconds
    for shard in found:
        if ShardState(shard.state).open:
            return PartsPage(parts=parts, next_index=shard.first_index, complete=False)
        end = shard.first_index + shard.num_items
        for part in parts_of(shard):
            url = services.store.presign_get(part.key, expires_seconds=seconds)
            view = PartView(
                url=url, sha256=part.sha256, num_bytes=part.num_bytes, first_index=shard.first_index, end_index=end
            )
            parts.append(view)
        next_index = end
    was_last_page = len(found) < limit
    input_read = job.state != JobState.accepted
    return PartsPage(parts=parts, next_index=next_index, complete=was_last_page and input_read)


def encode_cursor(job: JobRow) -> str:
    """Where a page of jobs ends: opaque to clients."""
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.id}".encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Raises InvalidRequest for what encode_cursor did not make."""
    try:
        created_at, _, job_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        return datetime.fromisoformat(created_at), job_id
    except ValueError:
        raise InvalidRequest("`cursor` is not one that this server gave; start without it") from None
