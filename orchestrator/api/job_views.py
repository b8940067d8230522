"""Jobs as clients see them: counts, rate, and a sentence on why one waits."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.api.dependencies import Services
from orchestrator.api.etas import Eta, Etas
from orchestrator.db import jobs, queueing, quotas, samples, teams, workers
from orchestrator.db.queueing import InFlight
from orchestrator.db.session import database_now
from orchestrator.db.shards import parts_of
from orchestrator.db.tables import EventRow, JobRow, ShardRow
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import Counts, JobState, was_late
from orchestrator.domain.quotas import Load, Quota, Use, day_of, why_not
from orchestrator.domain.shards import ShardState
from orchestrator.domain.windows import parse_window
from orchestrator.schemas import EventView, JobItems, JobView, PartsPage, PartView


def view_job(session: Session, job: JobRow) -> JobView:
    return view_jobs(session, [job])[0]


def view_jobs(session: Session, found: Sequence[JobRow]) -> list[JobView]:
    """Views with live counts: a few queries, however many jobs."""
    progress = jobs.progress_of(session, found)
    live = any(not JobState(job.state).ended for job in found)
    served = workers.models_served(session) if live else frozenset()
    running = {job.model for job in found if job.state == JobState.running}
    in_flight = queueing.jobs_in_flight(session, running) if running else []
    now = database_now(session)
    look = _Look(now, served, in_flight, _quotas(session, found, now))
    etas, views = Etas(session, now, look.quotas), list[JobView]()
    for job in found:
        counts, num_recent = progress[job.id]
        views.append(_view(job, counts, _waiting_reason(job, counts, look), etas.of(job, counts, num_recent), now))
    return views


@dataclass(frozen=True)
class _Look:
    """What was seen of the system when jobs were looked at.

    quotas: of the teams that have one which may hold back a shard, with what they use of it.
    """

    now: datetime
    served: frozenset[str]
    in_flight: Sequence[InFlight]
    quotas: Mapping[str, tuple[Quota, Use]]


def _quotas(session: Session, found: Sequence[JobRow], now: datetime) -> dict[str, tuple[Quota, Use]]:
    """Asks no more than for the teams' rows where none has a quota."""
    running = {job.team_id for job in found if job.state == JobState.running}
    limits = {team_id: quotas.quota_of(teams.get_team(session, team_id)) for team_id in running}
    limits = {team_id: quota for team_id, quota in limits.items() if quota.limits_turns}
    uses = quotas.uses_of(session, limits, day_of(now)) if limits else {}
    return {team_id: (quota, uses.get(team_id, Use())) for team_id, quota in limits.items()}


def _view(job: JobRow, counts: Counts, waiting_reason: str | None, eta: Eta, now: datetime) -> JobView:
    return JobView(
        id=job.id,
        name=job.name,
        kind=job.kind,
        model=job.model,
        options=job.options,
        state=job.state,
        state_reason=job.state_reason,
        waiting_reason=waiting_reason,
        items=JobItems(**asdict(counts)),
        items_per_second=_items_per_second(job, counts, now),
        eta_seconds=None if eta.at is None else max(0.0, (eta.at - now).total_seconds()),
        eta_at=eta.at,
        eta_basis=eta.basis,
        priority=job.priority,
        window=job.run_window,
        deadline_at=job.deadline_at,
        reuse=job.reuse,
        sample=job.sample,
        sample_total=job.sample_total,
        waits_for_approval=samples.waits_for_approval(job),
        approved_job=job.approved_job_id,
        rejected_at=job.rejected_at,
        sampled_by=job.sampled_by,
        replay_of=job.retry_of if job.replay_index is not None else None,
        replay_index=job.replay_index,
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


def _waiting_reason(job: JobRow, counts: Counts, look: _Look) -> str | None:
    """Why nothing comes out right now, from real state; None where something does or the job has ended."""
    if samples.waits_for_approval(job):
        return f"it is a sample, and waits until somebody approves the whole: `janus jobs approve {job.id}`"
    if JobState(job.state).ended:
        return None
    if job.cancel_requested_at is not None:
        why = (
            "its deadline has passed" if was_late(job.cancel_requested_at, job.deadline_at) else "it is being cancelled"
        )
        return f"{why}; workers drop what they hold within seconds"
    if job.paused_at is not None:
        return f"it was paused at {job.paused_at:%Y-%m-%d %H:%M} UTC; `janus jobs resume {job.id}` goes on"
    if job.state == JobState.accepted:
        return "its input is being read"
    if job.state == JobState.finishing:
        return job.state_reason or "its results are being merged"
    if job.run_window is not None and not (window := parse_window(job.run_window)).opening(look.now).holds(look.now):
        return f"its window opens {window.opens_text(look.now)}"
    if job.model not in look.served:
        return f"no worker serves {job.model} now; start one with `janus worker --model {job.model}`"
    if counts.finished == counts.total:
        return None  # its results are merged next
    if (held_back := _held_back(job, counts, look) or _behind(job, look.in_flight)) is not None:
        return held_back
    if not counts.finished:
        return "its first items are queued or being worked on"
    return None


def _held_back(job: JobRow, counts: Counts, look: _Look) -> str | None:
    """What its team's quota says to one more shard, where none of the job is begun."""
    quota, use = look.quotas.get(job.team_id, (Quota(), Use()))
    if any(other.job_id == job.id for other in look.in_flight):
        return None
    num_items = min(job.shard_items, counts.total - counts.finished)
    return why_not(quota, use, Load(num_items, num_items))


def _behind(job: JobRow, in_flight: Sequence[InFlight]) -> str | None:
    """Whom the workers are busy for, where they are and it is not this job."""
    busy = [other for other in in_flight if other.model == job.model]
    if not busy or any(other.job_id == job.id for other in busy):
        return None
    teams = {other.team_id for other in busy}
    if job.team_id in teams:
        return "it is behind other jobs of its team, with a higher priority or older"
    return f"it is behind {len(teams)} other team{'s' if len(teams) > 1 else ''}; its turn comes within a few shards"


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


def view_event(row: EventRow) -> EventView:
    """An event as it is answered."""
    return EventView(id=row.id, type=row.type, shard_id=row.shard_id, attempt=row.attempt, data=row.data, at=row.at)
