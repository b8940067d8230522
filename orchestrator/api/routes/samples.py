"""Samples: approve the whole of what one was taken from, or reject it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Writer
from orchestrator.api.job_views import view_job
from orchestrator.api.routes.jobs import MAX_SHARD_ANSWERS, require_coming, require_room
from orchestrator.db import jobs, samples
from orchestrator.db.session import database_now
from orchestrator.domain.errors import Conflict
from orchestrator.domain.jobs import JobKind, changed_options, options_for
from orchestrator.schemas import ApproveCreate, JobView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("/{job_id}/approve", status_code=201, responses={200: {"model": JobView}, 404: {}, 409: {}})
def approve_sample(
    job_id: Id,
    session: DbSession,
    caller: Writer,
    services: AppServices,
    response: Response,
    audit: Audit,
    body: ApproveCreate | None = None,
) -> JobView:
    """A job of the sample's whole input, as it was or changed; with `sample` a sample first. Again: the same."""
    job, asked = jobs.get_job(session, job_id), body or ApproveCreate()
    options = changed_options(options_for(JobKind(job.kind), job.options), asked.options or {})
    window, deadline_at = asked.window or job.run_window, asked.deadline_at or job.deadline_at
    request_sha256 = samples.approval_sha256(job, options, asked.sample, window, deadline_at)
    same = samples.find_approved(session, job, request_sha256)
    if same is not None:
        response.status_code = 200
        return view_job(session, same)
    if asked.deadline_at is None and deadline_at is not None and deadline_at <= database_now(session):
        raise Conflict(
            f"the deadline of {job.id} has passed; approve it with a later one (`deadline_at`, `--deadline`)"
        )
    require_coming(session, asked.deadline_at)
    require_room(session, caller, services.settings)
    fitting = max(1, MAX_SHARD_ANSWERS // options.seeds_per_item)
    made = samples.approve(
        session,
        job,
        options,
        sample=asked.sample,
        run_window=window,
        deadline_at=deadline_at,
        shard_items=min(job.shard_items, fitting),
        request_sha256=request_sha256,
    )
    audit.record("job.approved", job.id, new_job=made.id)
    return view_job(session, made)


@router.post("/{job_id}/reject", responses={404: {}, 409: {}})
def reject_sample(job_id: Id, session: DbSession, caller: Writer, audit: Audit) -> JobView:
    """The sample cannot be approved any more, and is kept no longer than other jobs."""
    job = jobs.get_job(session, job_id)
    samples.reject(session, job)
    audit.record("job.rejected", job.id)
    session.refresh(job)
    return view_job(session, job)
