"""Batches of OpenAI clients: each becomes a job of ours."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Reader, Writer
from orchestrator.api.openai_shapes import OpenaiBatch, OpenaiBatchCreate, OpenaiBatchPage, view_batches
from orchestrator.db import jobs, openai_batches, openai_files, quotas, uploads
from orchestrator.db.tables import OpenaiBatchRow
from orchestrator.domain.errors import Conflict, InvalidRequest
from orchestrator.domain.openai_batches import window_seconds

router = APIRouter(prefix="/openai/v1/batches", tags=["openai"])


@router.post("", responses={404: {}})
def create_batch(
    body: OpenaiBatchCreate, session: DbSession, caller: Writer, services: AppServices, audit: Audit
) -> OpenaiBatch:
    """Take a file of requests; it is looked at soon after."""
    file = openai_files.get_file(session, body.input_file_id)
    if file.purpose != "batch":
        raise InvalidRequest(f"{file.id} was made by a batch; send a file with the purpose 'batch'")
    if body.upload is not None:
        uploads.get_upload(session, caller.team_id, body.upload)
    most = services.settings.max_open_jobs_per_team
    if jobs.count_open_jobs(session, caller.team_id) + openai_batches.count_unread(session) >= most:
        raise InvalidRequest(
            f"the team has {most} open jobs (JANUS_MAX_OPEN_JOBS_PER_TEAM); wait for one to end, or cancel one",
            code="too_many_open_jobs",
        )
    quotas.require_space(session, caller.team_id)
    batch = openai_batches.create_batch(
        session,
        caller.team_id,
        endpoint=body.endpoint,
        input_file_id=file.id,
        upload_id=body.upload,
        completion_window=body.completion_window,
        window_seconds=window_seconds(body.completion_window),
        labels=body.metadata,
        output_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )
    audit.record("openai_batch.created", batch.id, endpoint=batch.endpoint)
    return _view(session, batch)


@router.get("", responses={404: {}})
def list_batches(
    session: DbSession,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> OpenaiBatchPage:
    """The team's batches, newest first."""
    found = openai_batches.list_batches(session, after=after, limit=limit + 1)
    return _views(session, found, limit)


@router.get("/{batch_id}", responses={404: {}})
def get_batch(batch_id: Id, session: DbSession, caller: Reader) -> OpenaiBatch:
    """One batch, with live counts."""
    return _view(session, openai_batches.get_batch(session, batch_id))


@router.post("/{batch_id}/cancel", responses={404: {}, 409: {}})
def cancel_batch(batch_id: Id, session: DbSession, caller: Writer, audit: Audit) -> OpenaiBatch:
    """Stop it: what is finished is in its output file."""
    batch = openai_batches.get_batch(session, batch_id)
    openai_batches.request_cancel(session, batch)
    session.refresh(batch)
    if batch.job_id is not None:
        with suppress(Conflict):  # its job may have nothing left to stop
            jobs.request_cancel(session, jobs.get_job(session, batch.job_id))
    audit.record("openai_batch.cancelled", batch.id)
    return _view(session, batch)


def _view(session: Session, batch: OpenaiBatchRow) -> OpenaiBatch:
    return _views(session, [batch], 1).data[0]


def _views(session: Session, found: Sequence[OpenaiBatchRow], limit: int) -> OpenaiBatchPage:
    made = jobs.list_of(session, [batch.job_id for batch in found if batch.job_id])
    return view_batches(found, jobs.counts_of(session, made), limit)
