"""Replays: one item of a job, made again to be compared."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, IdempotencyKey, Writer
from orchestrator.api.job_views import view_job
from orchestrator.api.routes.jobs import require_room
from orchestrator.db import jobs, replays
from orchestrator.schemas import JobView, ReplayCreate

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("/{job_id}/replay", status_code=201, responses={200: {"model": JobView}, 404: {}, 409: {}})
def replay_item(
    job_id: Id,
    body: ReplayCreate,
    session: DbSession,
    caller: Writer,
    services: AppServices,
    response: Response,
    audit: Audit,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """A new job of one item, with its options, prompt, seed and id, that is computed and not used again."""
    job = jobs.get_job(session, job_id)
    request_sha256 = replays.replay_sha256(job, body.index)
    same = jobs.find_by_idempotency_key(session, caller.team_id, idempotency_key, request_sha256)
    if same is not None:
        response.status_code = 200
        return view_job(session, same)
    require_room(session, caller, services.settings)
    replay, created = replays.create_replay(session, job, body.index, idempotency_key=idempotency_key)
    response.status_code = 201 if created else 200
    if created:
        audit.record("job.replayed", job.id, new_job=replay.id, index=body.index)
    return view_job(session, replay)
