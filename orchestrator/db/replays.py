"""Replays: a job of one item of another, asked as it was asked then, and computed anew."""

from __future__ import annotations

from sqlalchemy.orm import Session

from orchestrator.db import jobs
from orchestrator.db.tables import JobRow
from orchestrator.domain.errors import NotFound
from orchestrator.domain.jobs import JobKind, options_for


def replay_sha256(job: JobRow, index: int) -> str:
    """What stands for the request in a replay's row."""
    return f"replay of {job.id}: {index}"


def create_replay(
    session: Session, job: JobRow, index: int, *, idempotency_key: str | None = None
) -> tuple[JobRow, bool]:
    """A job that makes one item again, or the one that this key made: (job, created).

    It is read as a retry is, of the job's items, and so keeps the job and its upload as one does.

    Raises:
        NotFound: the job has no such item yet, or was deleted meanwhile.
        Conflict: the key was used for something else.
    """
    jobs.hold(session, job)
    if not 0 <= index < job.num_items:
        raise NotFound(f"{job.id} has no item {index}; it has {job.num_items}")
    kind = JobKind(job.kind)
    return jobs.create_job(
        session,
        job.team_id,
        name=f"{job.name} (replay of {index})"[:200],
        kind=kind,
        model=job.model,
        options=options_for(kind, job.options),
        input={"retry_of": job.id, "upload": job.upload_id},
        shard_items=1,
        priority=job.priority,
        reuse=False,
        idempotency_key=idempotency_key,
        request_sha256=replay_sha256(job, index),
        replay_index=index,
    )
