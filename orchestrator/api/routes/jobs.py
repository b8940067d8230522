"""Jobs: create, look, change, and fetch what is finished."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, IdempotencyKey, Reader, Services, Writer
from orchestrator.api.errors import problem
from orchestrator.api.job_views import decode_cursor, encode_cursor, view_event, view_job, view_jobs, view_parts
from orchestrator.api.streams import MAX_STREAMS, STREAMS, follow_events
from orchestrator.db import deletion, events, jobs, overview, quotas, shards, uploads, workers
from orchestrator.db.session import database_now
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import JobKind, JobState
from orchestrator.domain.names import is_safe_name
from orchestrator.domain.places import PlaceRefused
from orchestrator.domain.webhooks import check_secret, check_webhook
from orchestrator.schemas import (
    DownloadsCreate,
    EstimateCreate,
    EventsPage,
    FailuresPage,
    FailureView,
    JobCreate,
    JobInput,
    JobPage,
    JobView,
    PartsPage,
    RetryCreate,
    UrlsView,
)
from orchestrator.settings import Settings
from orchestrator.telemetry import get_logger

MAX_SHARD_ANSWERS = 2048
MAX_DEADLINE = timedelta(days=3650)
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
Index = Annotated[int, Query(ge=-1, le=2**62)]
PageLimit = Annotated[int, Query(ge=1, le=100)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("", status_code=201, responses={200: {"model": JobView}, 404: {}, 409: {}})
def create_job(
    body: Annotated[JobCreate, Body()],
    session: DbSession,
    caller: Writer,
    services: AppServices,
    response: Response,
    audit: Audit,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Accept a job. The same `Idempotency-Key` with the same body answers with the same job (200)."""
    settings = services.settings
    request_sha256 = hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    if (same := jobs.find_by_idempotency_key(session, caller.team_id, idempotency_key, request_sha256)) is not None:
        response.status_code = 200
        return view_job(session, same)
    if body.input.items is not None and len(body.input.items) > settings.max_inline_items:
        raise InvalidRequest(
            f"input.items has {len(body.input.items)} items; at most {settings.max_inline_items} are accepted inline "
            "(JANUS_MAX_INLINE_ITEMS). Upload a manifest instead."
        )
    if body.input.upload is not None:
        uploads.get_upload(session, caller.team_id, body.input.upload, hold=True)
        if body.input.manifest is not None and not is_safe_name(body.input.manifest):
            raise InvalidRequest(f"input.manifest {body.input.manifest!r} is not a name below the upload")
    if body.input.s3 is not None:
        _require_open(body.input.s3, caller, services)
    if body.kind == "generate" and body.input.items is None and body.input.manifest is None:
        raise InvalidRequest("a generation job reads prompts: give input.items, or input.manifest of the upload")
    kind, shard_items = JobKind(body.kind), shard_items_of(body, settings)
    if shard_items * body.options.seeds_per_item > MAX_SHARD_ANSWERS:
        raise InvalidRequest(
            f"shard_items x options.images is {shard_items * body.options.seeds_per_item}; "
            f"at most {MAX_SHARD_ANSWERS} answers go into one shard. Leave shard_items out."
        )
    if body.webhook is not None:
        check_secret(body.webhook.secret)
        check_webhook(body.webhook.url, allow_private=settings.allow_private_webhooks)
    require_known_model(session, body.model)
    require_coming(session, body.deadline_at)
    require_room(session, caller, settings)
    job, created = jobs.create_job(
        session,
        caller.team_id,
        name=body.name,
        kind=kind,
        model=body.model,
        options=body.options,
        input=_stored_input(body.input),
        shard_items=shard_items,
        priority=body.priority,
        run_window=body.window,
        deadline_at=body.deadline_at,
        reuse=body.reuse,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        webhook=body.webhook.model_dump() if body.webhook else None,
        sample=body.sample,
    )
    response.status_code = 201 if created else 200
    if created:
        audit.record("job.created", job.id, kind=job.kind, model=job.model)
    get_logger().info("job_created", job=job.id, team=caller.team_id, kind=job.kind, model=job.model, new=created)
    return view_job(session, job)


def shard_items_of(body: JobCreate | EstimateCreate, settings: Settings) -> int:
    """Items of a shard: as asked for, else so many that it has about the usual number of answers."""
    if body.shard_items is not None:
        return body.shard_items
    usual = settings.shard_items_caption if body.kind == "caption" else settings.shard_items_generate
    return max(1, usual // body.options.seeds_per_item)


def _require_open(urls: list[str], caller: Caller, services: Services) -> None:
    """By the operator's list alone: what is there is not looked at, so nothing is told of it."""
    for url in urls:
        try:
            services.places.locate(url, caller.team_id)
        except PlaceRefused as error:
            raise InvalidRequest(f"input.s3: {error}", code="place_refused") from None


def require_coming(session: DbSession, deadline_at: datetime | None) -> None:
    if deadline_at is not None and not timedelta() < deadline_at - database_now(session) <= MAX_DEADLINE:
        raise InvalidRequest(
            f"deadline_at is {deadline_at.isoformat()}; it must be in the future, and within {MAX_DEADLINE.days} days"
        )


def require_room(session: DbSession, caller: Caller, settings: Settings) -> None:
    if jobs.count_open_jobs(session, caller.team_id) >= settings.max_open_jobs_per_team:
        raise InvalidRequest(
            f"the team has {settings.max_open_jobs_per_team} open jobs (JANUS_MAX_OPEN_JOBS_PER_TEAM); "
            "wait for one to end, or cancel one",
            code="too_many_open_jobs",
        )
    quotas.require_space(session, caller.team_id)


def _stored_input(given: JobInput) -> dict[str, Any]:
    """Inline items as lines of text: whatever they hold, Postgres can, and the reader judges each by itself."""
    if given.items is not None:
        return {"lines": [json.dumps(item) for item in given.items], "upload": given.upload}
    return given.model_dump(exclude_none=True)


def require_known_model(session: DbSession, name: str) -> None:
    if workers.find_model(session, name) is None:
        known = ", ".join(model.name for model in workers.list_models(session)) or "none yet"
        raise InvalidRequest(
            f"model {name!r} is not known here: no worker has served it. Known: {known}. "
            f"Start one with `janus worker --model {name}`.",
            code="unknown_model",
        )


@router.get("")
def list_jobs(
    session: DbSession, caller: Reader, state: JobState | None = None, cursor: str | None = None, limit: PageLimit = 50
) -> JobPage:
    """The team's jobs, newest first."""
    before = decode_cursor(cursor) if cursor else None
    found = jobs.list_jobs(session, caller.team_id, state=state, before=before, limit=limit)
    next_cursor = encode_cursor(found[-1]) if len(found) == limit else None
    return JobPage(jobs=view_jobs(session, found), next_cursor=next_cursor)


@router.get("/{job_id}", responses={404: {}})
def get_job(job_id: Id, session: DbSession, caller: Reader) -> JobView:
    """One job, with its counts, rate and, where it waits, why."""
    return view_job(session, jobs.get_job(session, job_id))


@router.delete("/{job_id}", status_code=204, responses={404: {}, 409: {}})
def delete_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit) -> None:
    """Delete a job that has ended: gone from here at once, from the store soon after."""
    job = jobs.get_job(session, job_id)
    deletion.request_delete(session, job)
    audit.record("job.deleted", job.id)


@router.post("/{job_id}/cancel", responses={404: {}, 409: {}})
def cancel_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit) -> JobView:
    """Stop it: what is finished stays, what is not becomes cancelled."""
    job = jobs.get_job(session, job_id)
    jobs.request_cancel(session, job)
    audit.record("job.cancelled", job.id)
    session.refresh(job)
    return view_job(session, job)


@router.post("/{job_id}/pause", responses={404: {}, 409: {}})
def pause_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit) -> JobView:
    """Start nothing more until it is resumed."""
    job = jobs.get_job(session, job_id)
    jobs.pause(session, job)
    audit.record("job.paused", job.id)
    session.refresh(job)
    return view_job(session, job)


@router.post("/{job_id}/resume", responses={404: {}})
def resume_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit) -> JobView:
    """Go on after a pause."""
    job = jobs.get_job(session, job_id)
    jobs.resume(session, job)
    audit.record("job.resumed", job.id)
    session.refresh(job)
    return view_job(session, job)


@router.post("/{job_id}/retry", status_code=201, responses={200: {"model": JobView}, 404: {}, 409: {}})
def retry_job(
    job_id: Id,
    session: DbSession,
    caller: Writer,
    services: AppServices,
    response: Response,
    audit: Audit,
    body: RetryCreate | None = None,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """A new job of the failed items of one that has ended, or of those with certain codes; ids and seeds stay."""
    job = jobs.get_job(session, job_id)
    codes = tuple(sorted(set(body.codes))) if body is not None and body.codes else ()
    same = jobs.find_by_idempotency_key(session, caller.team_id, idempotency_key, jobs.retry_sha256(job, codes))
    if same is not None:
        response.status_code = 200
        return view_job(session, same)
    require_room(session, caller, services.settings)
    retry, created = jobs.create_retry(session, job, codes, idempotency_key=idempotency_key)
    response.status_code = 201 if created else 200
    if created:
        audit.record("job.retried", job.id, new_job=retry.id, codes=codes)
    return view_job(session, retry)


@router.get("/{job_id}/results", responses={404: {}})
def list_results(
    job_id: Id,
    session: DbSession,
    caller: Reader,
    services: AppServices,
    from_index: Index = 0,
    limit: Limit = 100,
    index: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> PartsPage:
    """Presigned parts of the shards that are finished, in item order, while the job runs and after.

    With `index`, those of the one shard that holds this item.
    """
    job = jobs.get_job(session, job_id)
    if index is not None:
        return view_parts(job, overview.shards_covering(session, job.id, index, index + 1), index, limit, services)
    found = shards.list_shards(session, job.id, from_index=from_index, limit=limit)
    return view_parts(job, found, from_index, limit, services)


@router.get("/{job_id}/failures", responses={404: {}})
def list_failures(
    job_id: Id, session: DbSession, caller: Reader, after_index: Index = -1, limit: Limit = 1000
) -> FailuresPage:
    """Items without a result, and why."""
    job = jobs.get_job(session, job_id)
    found = jobs.list_failures(session, job.id, after_index=after_index, limit=limit)
    views = [
        FailureView(index=f.index, id=f.item_id, code=f.code, message=f.message, attempts=f.attempts) for f in found
    ]
    return FailuresPage(failures=views, next_index=found[-1].index if len(found) == limit else None)


@router.get("/{job_id}/events", response_model=EventsPage, responses={404: {}})
def list_events(
    job_id: Id,
    request: Request,
    session: DbSession,
    caller: Reader,
    services: AppServices,
    after_id: Index = 0,
    limit: Limit = 1000,
) -> EventsPage | Response:
    """What happened to it, in order; with `Accept: text/event-stream` what happens too, until it has ended."""
    job = jobs.get_job(session, job_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        if not STREAMS.has_room(caller.key_id):
            detail = f"this key has {MAX_STREAMS} streams open; close one, or ask for pages"
            return problem(request, 429, "too_many_requests", detail, {"Retry-After": "60"})
        return follow_events(services, caller, job.id, _last_event_id(request) or after_id)
    found = events.list_events(session, job.id, after_id=after_id, limit=limit)
    return EventsPage(events=[view_event(e) for e in found], next_id=found[-1].id if len(found) == limit else None)


def _last_event_id(request: Request) -> int | None:
    """What a listener that lost its connection heard last."""
    told = request.headers.get("last-event-id", "")
    return int(told) if told.isdecimal() and len(told) < 19 else None


@router.post("/{job_id}/downloads", responses={404: {}})
def create_downloads(
    job_id: Id, body: DownloadsCreate, session: DbSession, caller: Reader, services: AppServices
) -> UrlsView:
    """A presigned GET for each of the job's objects named."""
    job = jobs.get_job(session, job_id)
    for name in body.names:
        if not is_safe_name(name):
            raise InvalidRequest(f"{name!r} is not the name of an object of this job")
    seconds = services.settings.presigned_url_seconds
    urls = [services.store.presign_get(f"jobs/{job.id}/{name}", expires_seconds=seconds) for name in body.names]
    return UrlsView(urls=urls, expires_seconds=seconds)
