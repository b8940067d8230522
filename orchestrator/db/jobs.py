"""Jobs: each transition is one UPDATE that names the state it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select, true, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from orchestrator.db import events, overview, webhooks
from orchestrator.db.shards import IN_FLIGHT
from orchestrator.db.tables import FailureRow, JobRow, ShardRow, TeamRow
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.jobs import ENDED, Counts, JobKind, JobState, Options, end_state, options_for
from orchestrator.domain.shards import ShardState

RECENT = timedelta(minutes=15)  # what a job's pace is measured over
PER_TEAM = 16  # of a team's jobs at a look, whichever is next: more than are read or merged at once


def create_job(
    session: Session,
    team_id: str,
    *,
    name: str,
    kind: JobKind,
    model: str,
    options: Options,
    input: dict[str, Any],
    shard_items: int,
    priority: int = 0,
    run_window: str | None = None,
    deadline_at: datetime | None = None,
    reuse: bool = True,
    idempotency_key: str | None = None,
    request_sha256: str | None = None,
    webhook: dict[str, str] | None = None,
    sample: int | None = None,
    sampled_by: str | None = None,
    replay_index: int | None = None,
) -> tuple[JobRow, bool]:
    """Make a job, or find the one that this idempotency key made: (job, created).

    Raises:
        Conflict: the key was used for a different request.
    """
    job = JobRow(
        id=new_id("job"),
        team_id=team_id,
        name=name,
        kind=kind,
        model=model,
        options=asdict(options),
        input=input,
        shard_items=shard_items,
        priority=priority,
        run_window=run_window,
        deadline_at=deadline_at,
        reuse=reuse,
        state=JobState.accepted,
        idempotency_key=idempotency_key,
        request_sha256=request_sha256,
        webhook=webhook,
        sample=sample,
        sampled_by=sampled_by,
        replay_index=replay_index,
    )
    try:
        with session.begin_nested():
            session.add(job)
            session.flush()
            events.record(session, "job.accepted", job_id=job.id)
    except IntegrityError:
        return _find_same_request(session, team_id, idempotency_key, request_sha256), False
    session.refresh(job)
    return job, True


def _find_same_request(session: Session, team_id: str, key: str | None, request_sha256: str | None) -> JobRow:
    job = session.scalars(select(JobRow).where(JobRow.team_id == team_id, JobRow.idempotency_key == key)).one()
    if job.request_sha256 != request_sha256:
        message = f"the idempotency key {key!r} made {job.id} from a different request; use a new key"
        raise Conflict(message, code="idempotency_key_reused")
    return job


def find_by_idempotency_key(
    session: Session, team_id: str, idempotency_key: str | None, request_sha256: str
) -> JobRow | None:
    """The job that this key made, if it made one. Raises Conflict where that was from another request."""
    if idempotency_key is None:
        return None
    made = select(JobRow.id).where(JobRow.team_id == team_id, JobRow.idempotency_key == idempotency_key)
    if session.scalars(made).first() is None:
        return None
    return _find_same_request(session, team_id, idempotency_key, request_sha256)


def retry_sha256(job: JobRow, codes: Sequence[str] = ()) -> str:
    """What stands for the request in a retry's row: which job it retries, and which of its failures."""
    return f"retry of {job.id}" + (f": {hashlib.sha256(' '.join(codes).encode()).hexdigest()[:32]}" if codes else "")


def create_retry(
    session: Session, job: JobRow, codes: Sequence[str] = (), *, idempotency_key: str | None = None
) -> tuple[JobRow, bool]:
    """A job of the items that failed in one that has ended, or the one that this key made: (job, created).

    Args:
        codes: of the failures to try again, in order; none are all.
    Raises:
        Conflict: there is nothing to retry, or the key was used for something else.
        NotFound: it was deleted meanwhile.
    """
    hold(session, job)
    if not JobState(job.state).ended or not job.num_failures:
        raise Conflict(f"{job.id} is {job.state} with {job.num_failures} failures; there is nothing to retry")
    if codes and not _has_failures(session, job.id, codes):
        known = ", ".join(overview.codes_of(session, job.id))
        raise Conflict(f"no item of {job.id} failed with {' or '.join(codes)}; its failures are {known}")
    kind = JobKind(job.kind)
    return create_job(
        session,
        job.team_id,
        name=f"{job.name} (retry)"[:200],
        kind=kind,
        model=job.model,
        options=options_for(kind, job.options),
        input={"retry_of": job.id, "upload": job.upload_id} | ({"codes": list(codes)} if codes else {}),
        shard_items=job.shard_items,
        priority=job.priority,
        run_window=job.run_window,
        reuse=job.reuse,
        idempotency_key=idempotency_key,
        request_sha256=retry_sha256(job, codes),
        webhook=job.webhook,
    )


def hold(session: Session, job: JobRow) -> None:
    """Whoever deletes the job waits, and then sees what is made of it, which has yet to read its objects.

    Raises NotFound where it was deleted meanwhile.
    """
    held = select(JobRow.id).where(JobRow.id == job.id, JobRow.deleted_at.is_(None)).with_for_update(read=True)
    if session.scalars(held).first() is None:
        raise NotFound(f"there is no job {job.id!r}")


def _has_failures(session: Session, job_id: str, codes: Sequence[str]) -> bool:
    with_code = select(FailureRow.index).where(FailureRow.job_id == job_id, FailureRow.code.in_(codes))
    return session.scalars(with_code.limit(1)).first() is not None


def get_job(session: Session, job_id: str, *, team_id: str | None = None) -> JobRow:
    """Raises NotFound, in a confined session for another team's job too; so does `team_id` in one that is not."""
    statement = select(JobRow).where(JobRow.id == job_id)
    if team_id is not None:
        statement = statement.where(JobRow.team_id == team_id)
    job = session.scalars(statement).first()
    if job is None:
        raise NotFound(f"there is no job {job_id!r}")
    return job


def find_job(session: Session, job_id: str) -> JobRow | None:
    return session.get(JobRow, job_id)


def list_jobs(
    session: Session, team_id: str, *, state: JobState | None, before: tuple[datetime, str] | None, limit: int
) -> Sequence[JobRow]:
    """A team's jobs, newest first; `before` is the (created_at, id) of the last one seen."""
    statement = select(JobRow).where(JobRow.team_id == team_id)
    if state is not None:
        statement = statement.where(JobRow.state == state)
    if before is not None:
        statement = statement.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*before))
    return session.scalars(statement.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)).all()


def list_of(session: Session, job_ids: Sequence[str]) -> Sequence[JobRow]:
    """Those of them that are there."""
    return session.scalars(select(JobRow).where(JobRow.id.in_(job_ids))).all()


def count_open_jobs(session: Session, team_id: str) -> int:
    statement = select(func.count()).select_from(JobRow)
    return session.scalars(statement.where(JobRow.team_id == team_id, JobRow.state.not_in(ENDED))).one()


def counts_of(session: Session, jobs: Iterable[JobRow]) -> dict[str, Counts]:
    """What became of each job's items so far: from the job once it ended, from its shards until then."""
    return {job_id: counts for job_id, (counts, _) in progress_of(session, jobs).items()}


def progress_of(session: Session, jobs: Iterable[JobRow]) -> dict[str, tuple[Counts, int]]:
    """The counts, and how many items are in shards that were finished lately, of jobs that have not ended."""
    counts = {j.id: Counts(j.num_items, j.num_results, j.num_failures, j.num_cancelled, j.num_reused) for j in jobs}
    live = [job.id for job in jobs if not JobState(job.state).ended]
    sums = (
        select(
            ShardRow.job_id,
            func.sum(ShardRow.num_results),
            func.sum(ShardRow.num_failures),
            func.sum(ShardRow.num_reused),
            func.sum(ShardRow.num_results + ShardRow.num_failures).filter(ShardRow.finished_at > func.now() - RECENT),
        )
        .where(ShardRow.job_id.in_(live))
        .group_by(ShardRow.job_id)
    )
    progress = {job_id: (known, 0) for job_id, known in counts.items()}
    for job_id, results, failures, reused, recent in session.execute(sums):
        known = Counts(counts[job_id].total, int(results), int(failures), reused=int(reused))
        progress[job_id] = known, int(recent or 0)
    return progress


def list_failures(session: Session, job_id: str, *, after_index: int, limit: int) -> Sequence[FailureRow]:
    statement = select(FailureRow).where(FailureRow.job_id == job_id, FailureRow.index > after_index)
    return session.scalars(statement.order_by(FailureRow.index).limit(limit)).all()


def request_cancel(session: Session, job: JobRow) -> None:
    """Nothing starts from now on: the reaper cancels what waits, workers drop what they hold, the finisher ends it.

    Asking twice is harmless. Raises Conflict where the job has ended otherwise.
    """
    if job.state == JobState.cancelled or job.cancel_requested_at is not None:
        return
    statement = (
        update(JobRow)
        .where(JobRow.id == job.id, JobRow.state.in_([JobState.accepted, JobState.running]))
        .values(cancel_requested_at=func.clock_timestamp())
    )
    if not _changed(session, statement):
        raise Conflict(f"{job.id} is {job.state}; only an accepted or running job can be cancelled")
    events.record(session, "job.cancel_requested", job_id=job.id)


def expire(session: Session, *, limit: int = 1000) -> int:
    """A deadline that has passed asks for the job's cancel, paused or not; how many did.

    What follows is as with a cancel, and `finish` knows whose it was: a deadline's comes after it.
    """
    late = (
        select(JobRow.id)
        .where(
            JobRow.deadline_at <= func.clock_timestamp(),
            JobRow.state.in_([JobState.accepted, JobState.running]),
            JobRow.cancel_requested_at.is_(None),
        )
        .order_by(JobRow.deadline_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = update(JobRow).where(JobRow.id.in_(late)).values(cancel_requested_at=func.clock_timestamp())
    expired = session.scalars(statement.returning(JobRow.id).execution_options(synchronize_session=False)).all()
    for job_id in expired:
        events.record(session, "job.deadline_passed", job_id=job_id)
    return len(expired)


def pause(session: Session, job: JobRow) -> None:
    """No shard starts from now on; workers give back what they hold. Pausing twice is harmless."""
    if job.paused_at is not None:
        return
    open_states = [JobState.accepted, JobState.running]
    statement = update(JobRow).where(JobRow.id == job.id, JobRow.state.in_(open_states), JobRow.paused_at.is_(None))
    if not _changed(session, statement.values(paused_at=func.clock_timestamp())):
        raise Conflict(f"{job.id} is {job.state}; only an accepted or running job can be paused")
    # What is in the queue goes back, so that it does not keep a place there; its message finds nothing to lease.
    session.execute(
        update(ShardRow)
        .where(ShardRow.job_id == job.id, ShardRow.state == ShardState.dispatched)
        .values(state=ShardState.waiting)
    )
    events.record(session, "job.paused", job_id=job.id)


def resume(session: Session, job: JobRow) -> None:
    """Resuming a job that is not paused is harmless."""
    if _changed(
        session, update(JobRow).where(JobRow.id == job.id, JobRow.paused_at.is_not(None)).values(paused_at=None)
    ):
        events.record(session, "job.resumed", job_id=job.id)


def list_unread(session: Session, *, without: Collection[Hashable] = ()) -> Sequence[str]:
    """Ids of jobs whose input is still to be read: the oldest of each team, then the second oldest, and a few more.

    Args:
        without: jobs to leave out.
    """
    return session.scalars(_unread(), {"without": list(without)}).all()


@cache  # asked many times a second, and slow to make
def _unread() -> Select[str]:
    unread = (JobRow.state == JobState.accepted) & JobRow.cancel_requested_at.is_(None)
    return _in_turns(unread, JobRow.started_at)


def start(session: Session, job_id: str, num_items: int, sample_total: int | None = None) -> bool:
    """accepted -> running, unless it was cancelled while its input was read."""
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == JobState.accepted, JobRow.cancel_requested_at.is_(None))
        .values(
            state=JobState.running,
            num_items=num_items,
            sample_total=sample_total,
            started_at=func.clock_timestamp(),
        )
    )
    started = _changed(session, statement)
    if started:
        events.record(session, "job.running", job_id=job_id, num_items=num_items)
    return started


def fail(session: Session, job_id: str, reason: str) -> bool:
    """accepted -> failed: its input could not be read. False where it was not accepted any more."""
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == JobState.accepted)
        .values(state=JobState.failed, state_reason=reason, finished_at=func.clock_timestamp())
    )
    failed = _changed(session, statement)
    if failed:
        events.record(session, "job.failed", job_id=job_id, reason=reason)
        webhooks.record_job_end(session, job_id)
    return failed


def list_to_finish(session: Session, *, without: Collection[Hashable] = ()) -> Sequence[str]:
    """Ids of jobs with nothing left to run: to be merged, or half merged by a finisher that died. In turns too."""
    return session.scalars(_to_finish(), {"without": list(without)}).all()


@cache
def _to_finish() -> Select[str]:
    waits = select(ShardRow.id).where(ShardRow.job_id == JobRow.id, ShardRow.state == ShardState.waiting).exists()
    cancelled_unread = (JobRow.state == JobState.accepted) & JobRow.cancel_requested_at.is_not(None)
    all_done = (JobRow.state == JobState.running) & ~waits & JobRow.id.not_in(IN_FLIGHT)
    condition = all_done | cancelled_unread | (JobRow.state == JobState.finishing)
    return _in_turns(condition, JobRow.finished_at)


def begin_finishing(session: Session, job_id: str) -> None:
    """running (or cancelled before it ran) -> finishing."""
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state.in_([JobState.accepted, JobState.running]))
        .values(state=JobState.finishing)
    )
    if _changed(session, statement):
        events.record(session, "job.finishing", job_id=job_id)


def note_trouble(session: Session, job_id: str, reason: str) -> None:
    """Say why a job cannot be finished yet; its state stays, and the finisher goes on trying."""
    statement = update(JobRow).where(
        JobRow.id == job_id, JobRow.state == JobState.finishing, JobRow.state_reason.is_distinct_from(reason)
    )
    if _changed(session, statement.values(state_reason=reason)):
        events.record(session, "job.finish_failed", job_id=job_id, reason=reason)


def finish(session: Session, job: JobRow, counts: Counts, manifest_sha256: str) -> JobState:
    """finishing -> cancelled or expired where that was asked for and left items without a result, else completed."""
    state = end_state(counts, cancelled_at=job.cancel_requested_at, deadline_at=job.deadline_at)
    statement = (
        update(JobRow)
        .where(JobRow.id == job.id, JobRow.state == JobState.finishing)
        .values(
            state=state,
            num_results=counts.results,
            num_failures=counts.failures,
            num_cancelled=counts.cancelled,
            num_reused=counts.reused,
            manifest_sha256=manifest_sha256,
            state_reason=None,
            paused_at=None,
            finished_at=func.clock_timestamp(),
        )
    )
    if _changed(session, statement):
        events.record(session, f"job.{state}", job_id=job.id, results=counts.results, failures=counts.failures)
        webhooks.record_job_end(session, job.id)
    return state


def _in_turns(condition: ColumnElement[bool], served_at: InstrumentedAttribute[datetime | None]) -> Select[str]:
    """Ids of such jobs, the oldest of each team. A job's turn: its place among those, behind what the team had in the
    last minute.

    Args:
        served_at: when it was done; the transaction's time, as no index answers for a clock that goes on.
    """
    earlier = aliased(JobRow)
    when = getattr(earlier, served_at.key)
    had = (
        select(earlier.team_id, func.count().label("jobs"))
        .where(when > func.now() - timedelta(minutes=1))
        .group_by(earlier.team_id)
        .subquery()
    )
    without = JobRow.id.not_in(bindparam("without", expanding=True))
    some = (
        select(JobRow.id, JobRow.created_at)
        .where(JobRow.team_id == TeamRow.id, condition, without)
        .order_by(JobRow.created_at, JobRow.id)
        .limit(PER_TEAM)
        .lateral("some")
    )
    place = func.row_number().over(partition_by=TeamRow.id, order_by=(some.c.created_at, some.c.id))
    statement = select(some.c.id).select_from(TeamRow).join(some, true())
    statement = statement.outerjoin(had, had.c.team_id == TeamRow.id)
    return statement.order_by(func.coalesce(had.c.jobs, 0) + place, some.c.created_at)


def _changed(session: Session, statement: Any) -> bool:
    return (
        session.execute(statement.returning(JobRow.id).execution_options(synchronize_session=False)).first() is not None
    )
