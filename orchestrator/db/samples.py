"""Samples: jobs of a part of their input, that wait until somebody approves the whole of it or rejects it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.db import events, jobs
from orchestrator.db.tables import JobRow
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.jobs import JobKind, JobState, Options

WAITS = (
    JobRow.sample.is_not(None)
    & (JobRow.state == JobState.completed)
    & JobRow.approved_job_id.is_(None)
    & JobRow.rejected_at.is_(None)
)
"""A sample that nobody has decided on; what it was taken from is kept for as long."""


def waits_for_approval(job: JobRow) -> bool:
    """WAITS, of a row in hand."""
    is_open = job.approved_job_id is None and job.rejected_at is None
    return job.sample is not None and job.state == JobState.completed and is_open


def approval_sha256(
    job: JobRow, options: Options, sample: int | None, run_window: str | None, deadline_at: datetime | None
) -> str:
    """What stands for the request in the row of the job that it made."""
    ends_at = None if deadline_at is None else deadline_at.timestamp()
    asked = json.dumps([asdict(options), sample, run_window, ends_at], sort_keys=True)
    return f"approval of {job.id}: {hashlib.sha256(asked.encode()).hexdigest()[:32]}"


def find_approved(session: Session, job: JobRow, request_sha256: str) -> JobRow | None:
    """The job that this approval made before; None where the sample waits for one, and nobody else approves it now.

    Raises:
        NotFound: it was deleted meanwhile.
        Conflict: it is no sample, has not completed, was rejected, or approved otherwise.
    """
    job = _held(session, job)
    if job.approved_job_id is None:
        if job.rejected_at is not None:
            raise Conflict(f"{job.id} was rejected at {job.rejected_at:%Y-%m-%d %H:%M} UTC; submit its input again")
        if job.state != JobState.completed:
            raise Conflict(f"{job.id} is {job.state}; a sample can be approved when it is completed")
        return None
    made = session.scalars(select(JobRow).where(JobRow.id == job.approved_job_id)).first()
    if made is None:
        raise Conflict(f"{job.id} was approved as {job.approved_job_id}, which was deleted; submit its input again")
    if made.request_sha256 != request_sha256:
        raise Conflict(f"{job.id} was approved as {made.id} with other options; cancel that and submit anew")
    return made


def approve(
    session: Session,
    job: JobRow,
    options: Options,
    *,
    sample: int | None,
    run_window: str | None,
    deadline_at: datetime | None,
    shard_items: int,
    request_sha256: str,
) -> JobRow:
    """A job of the sample's whole input, or a sample of it again; `find_approved` has found none."""
    made, _ = jobs.create_job(
        session,
        job.team_id,
        name=job.name,
        kind=JobKind(job.kind),
        model=job.model,
        options=options,
        input=job.input,
        shard_items=shard_items,
        priority=job.priority,
        run_window=run_window,
        deadline_at=deadline_at,
        reuse=job.reuse,
        request_sha256=request_sha256,
        webhook=job.webhook,
        sample=sample,
        sampled_by=job.id,
    )
    session.execute(update(JobRow).where(JobRow.id == job.id, WAITS).values(approved_job_id=made.id))
    events.record(session, "job.approved", job_id=job.id, approved_job=made.id)
    return made


def reject(session: Session, job: JobRow) -> None:
    """It cannot be approved any more, and is kept no longer than other jobs. Rejecting twice is harmless.

    Raises Conflict where it is no sample, has not ended, or was approved.
    """
    job = _held(session, job)
    if job.approved_job_id is not None:
        raise Conflict(f"{job.id} was approved as {job.approved_job_id}; cancel that one")
    if not JobState(job.state).ended:
        raise Conflict(f"{job.id} is {job.state}; cancel it, or reject it when it has ended")
    if job.rejected_at is not None:
        return
    statement = update(JobRow).where(JobRow.id == job.id, JobRow.rejected_at.is_(None))
    session.execute(statement.values(rejected_at=func.clock_timestamp()))
    events.record(session, "job.rejected", job_id=job.id)


def _held(session: Session, job: JobRow) -> JobRow:
    """The sample as it is now, and for as long as the transaction lasts."""
    statement = select(JobRow).where(JobRow.id == job.id, JobRow.deleted_at.is_(None)).with_for_update()
    held = session.scalars(statement.execution_options(populate_existing=True)).first()
    if held is None:
        raise NotFound(f"there is no job {job.id!r}")
    if held.sample is None:
        raise Conflict(f"{held.id} is no sample; only a job that was submitted with `sample` is approved or rejected")
    return held
