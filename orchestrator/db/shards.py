"""Shards: planned, dispatched, leased, written to, finished. Once a shard is leased, every write names its attempt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Interval, Select, Text, cast, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db import events
from orchestrator.db.tables import FailureRow, JobRow, ShardRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.shards import Part, ShardState


class LeaseLost(Exception):
    """The shard is no longer this attempt's: stop, and write nothing more."""

    def __init__(self, shard_id: int, attempt: int) -> None:
        super().__init__(f"attempt {attempt} no longer holds shard {shard_id}; a newer attempt or a cancel took it")
        self.shard_id = shard_id
        self.attempt = attempt


@dataclass(frozen=True)
class Message:
    """What the broker carries: ids only."""

    shard_id: int
    attempt: int
    model: str


@dataclass(frozen=True)
class ItemFailure:
    """A failure as its row says it."""

    index: int
    item_id: str
    code: str
    message: str
    attempts: int


def add_shard(session: Session, job_id: str, *, items_key: str, first_index: int, num_items: int) -> None:
    session.add(ShardRow(job_id=job_id, items_key=items_key, first_index=first_index, num_items=num_items))


def get_shard(session: Session, shard_id: int) -> ShardRow:
    return session.get_one(ShardRow, shard_id)


def list_shards(session: Session, job_id: str, *, from_index: int = 0, limit: int = 1000) -> Sequence[ShardRow]:
    """A job's shards in item order, from the one that starts at `from_index` or later."""
    statement = select(ShardRow).where(ShardRow.job_id == job_id, ShardRow.first_index >= from_index)
    return session.scalars(statement.order_by(ShardRow.first_index).limit(limit)).all()


def failed_by_object(session: Session, job_id: str) -> Iterator[tuple[str, frozenset[int]]]:
    """For each items object of a job with failures: its key, and the indexes that failed, in item order."""
    inside = (FailureRow.index >= ShardRow.first_index) & (FailureRow.index < ShardRow.first_index + ShardRow.num_items)
    statement = (
        select(ShardRow.items_key, func.array_agg(FailureRow.index))
        .join(FailureRow, (FailureRow.job_id == ShardRow.job_id) & inside)
        .where(ShardRow.job_id == job_id)
        .group_by(ShardRow.items_key)
        .order_by(func.min(FailureRow.index))
    )
    for key, indexes in session.execute(statement).all():
        yield key, frozenset(indexes)


# --- Dispatch -----------------------------------------------------------------------------------------------------


def models_with_waiting_shards(session: Session) -> Sequence[str]:
    return session.scalars(_ready(select(JobRow.model)).distinct()).all()


def count_dispatched(session: Session, model: str) -> int:
    statement = select(func.count()).select_from(ShardRow).join(JobRow)
    return session.scalars(statement.where(ShardRow.state == ShardState.dispatched, JobRow.model == model)).one()


def dispatch_waiting(session: Session, model: str, *, limit: int) -> list[Message]:
    """waiting -> dispatched for the next `limit` shards, and count their attempts.

    Teams take turns: a team's n-th next shard comes after every team's (n-1)-th, and what a team has in flight counts
    as turns it has had. Within a team: priority, then the older job, then item order.
    """
    in_flight = (
        select(JobRow.team_id, func.count().label("shards"))
        .join(ShardRow, ShardRow.job_id == JobRow.id)
        .where(ShardRow.state.in_([ShardState.dispatched, ShardState.leased]), JobRow.model == model)
        .group_by(JobRow.team_id)
        .subquery()
    )
    order_within_team = (JobRow.priority.desc(), JobRow.created_at, JobRow.id, ShardRow.first_index)
    turn = func.row_number().over(partition_by=JobRow.team_id, order_by=order_within_team)
    queue = (
        _ready(select(ShardRow.id, (turn + func.coalesce(in_flight.c.shards, 0)).label("turn"), JobRow.created_at))
        .outerjoin(in_flight, in_flight.c.team_id == JobRow.team_id)
        .where(JobRow.model == model)
        .subquery()
    )
    next_ids = select(queue.c.id).order_by(queue.c.turn, queue.c.created_at).limit(limit)
    claimed = (
        select(ShardRow.id)
        .where(ShardRow.id.in_(next_ids), ShardRow.state == ShardState.waiting)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(ShardRow)
        .where(ShardRow.id.in_(claimed), ShardRow.state == ShardState.waiting)
        .values(
            state=ShardState.dispatched,
            attempt=ShardRow.attempt + 1,
            published_at=func.clock_timestamp(),
            not_before=None,
        )
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return [Message(shard_id, attempt, model) for shard_id, attempt in sorted(rows)]


def take_unanswered(session: Session, model: str, *, published_before: datetime) -> list[Message]:
    """Dispatched shards that nobody leased since; marks them published again."""
    of_model = select(JobRow.id).where(JobRow.model == model, JobRow.state == JobState.running)
    statement = (
        update(ShardRow)
        .where(
            ShardRow.state == ShardState.dispatched,
            ShardRow.published_at < published_before,
            ShardRow.job_id.in_(of_model),
        )
        .values(published_at=func.clock_timestamp())
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return [Message(shard_id, attempt, model) for shard_id, attempt in sorted(rows)]


def models_with_dispatched_shards(session: Session) -> Sequence[str]:
    statement = select(JobRow.model).join(ShardRow).where(ShardRow.state == ShardState.dispatched).distinct()
    return session.scalars(statement).all()


def _ready(statement: Select[Any]) -> Select[Any]:
    """Shards that may be dispatched now."""
    return (
        statement.select_from(ShardRow)
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(
            ShardRow.state == ShardState.waiting,
            JobRow.state == JobState.running,
            JobRow.paused_at.is_(None),
            JobRow.cancel_requested_at.is_(None),
            ShardRow.not_before.is_(None) | (ShardRow.not_before <= func.clock_timestamp()),
        )
    )


# --- Leases -------------------------------------------------------------------------------------------------------


def take_lease(
    session: Session, shard_id: int, attempt: int, *, worker_id: str, lease_seconds: float
) -> ShardRow | None:
    """dispatched -> leased. None where the message is old: someone holds the shard, or it is over."""
    statement = (
        update(ShardRow)
        .where(
            ShardRow.id == shard_id,
            ShardRow.attempt == attempt,
            ShardRow.state == ShardState.dispatched,
            ShardRow.job_id.in_(select(JobRow.id).where(JobRow.cancel_requested_at.is_(None))),
        )
        .values(state=ShardState.leased, worker_id=worker_id, lease_expires_at=_from_now(lease_seconds))
        .returning(ShardRow)
    )
    return session.scalars(statement).first()


def renew_leases(session: Session, held: Iterable[tuple[int, int]], *, lease_seconds: float) -> set[tuple[int, int]]:
    """Renew those (shard, attempt) pairs that are still leased.

    A row that somebody else works on right now is left for the next beat, so that one cannot hold up the others; which
    leases are lost is for find_stops to say.
    """
    ours = (
        select(ShardRow.id)
        .where(tuple_(ShardRow.id, ShardRow.attempt).in_(list(held)), ShardRow.state == ShardState.leased)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(ShardRow)
        .where(ShardRow.id.in_(ours))
        .values(lease_expires_at=_from_now(lease_seconds))
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return {(shard_id, attempt) for shard_id, attempt in rows}


def find_stops(session: Session, held: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Which of these shards should stop, and why: `cancel`, `pause` or `lost`."""
    pairs = list(held)
    statement = (
        select(ShardRow.id, ShardRow.attempt, ShardRow.state, JobRow.cancel_requested_at, JobRow.paused_at)
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(ShardRow.id.in_([shard_id for shard_id, _ in pairs]))
    )
    stops = {}
    for shard_id, attempt, state, cancelled_at, paused_at in session.execute(statement):
        for pair in pairs:
            if pair[0] != shard_id:
                continue
            if pair[1] != attempt or state != ShardState.leased:
                stops[pair] = "lost"
            elif cancelled_at is not None:
                stops[pair] = "cancel"
            elif paused_at is not None:
                stops[pair] = "pause"
    return stops


def append_part(session: Session, shard_id: int, attempt: int, part: Part, failures: Sequence[ItemFailure]) -> None:
    """Make a stored part true: named by the row, counted, its failures recorded; and the crash count starts afresh.

    Repeating it is harmless, so a commit whose answer was lost may be tried again.

    Raises:
        LeaseLost: the object stays behind as garbage that no row names.
    """
    shard = session.scalars(select(ShardRow).where(ShardRow.id == shard_id).with_for_update()).one()
    if shard.attempt != attempt or shard.state != ShardState.leased:
        raise LeaseLost(shard_id, attempt)
    if any(stored["key"] == part.key for stored in shard.parts):
        return
    shard.parts = [*shard.parts, part.as_json()]
    shard.num_results += part.num_results
    shard.num_failures += part.num_failures
    shard.crashes = 0
    insert_failures(session, shard.job_id, failures)


def insert_failures(session: Session, job_id: str, failures: Sequence[ItemFailure]) -> None:
    if failures:
        rows = [{"job_id": job_id, **_failure_values(failure)} for failure in failures]
        session.execute(insert(FailureRow), rows)


def finish_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """leased -> done; the table refuses it unless every item has a result or a failure. Raises LeaseLost."""
    job_id = _fenced(
        session, shard_id, attempt, state=ShardState.done, finished_at=func.clock_timestamp(), lease_expires_at=None
    )
    events.record(session, "shard.done", job_id=job_id, shard_id=shard_id, attempt=attempt)


def cancel_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """leased -> cancelled, what is finished kept. Raises LeaseLost."""
    job_id = _fenced(
        session,
        shard_id,
        attempt,
        state=ShardState.cancelled,
        finished_at=func.clock_timestamp(),
        lease_expires_at=None,
    )
    events.record(session, "shard.cancelled", job_id=job_id, shard_id=shard_id, attempt=attempt)


def release_shard_if_leased(
    session: Session, shard_id: int, attempt: int, *, reason: str, delay_seconds: float
) -> None:
    """leased -> waiting: the attempt stops through no fault of its items. Raises LeaseLost."""
    job_id = _fenced(
        session,
        shard_id,
        attempt,
        state=ShardState.waiting,
        releases=ShardRow.releases + 1,
        not_before=_from_now(delay_seconds) if delay_seconds else None,
        lease_expires_at=None,
        worker_id=None,
    )
    events.record(session, "shard.released", job_id=job_id, shard_id=shard_id, attempt=attempt, reason=reason)


def expire_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """End the lease now: the attempt failed for a reason nobody foresaw, so the reaper judges it. Raises LeaseLost."""
    job_id = _fenced(session, shard_id, attempt, lease_expires_at=func.clock_timestamp())
    events.record(session, "shard.crashed", job_id=job_id, shard_id=shard_id, attempt=attempt)


def _fenced(session: Session, shard_id: int, attempt: int, **values: Any) -> str:
    """The one door for writes of an attempt: they change nothing unless it still holds the lease."""
    statement = (
        update(ShardRow)
        .where(ShardRow.id == shard_id, ShardRow.attempt == attempt, ShardRow.state == ShardState.leased)
        .values(**values)
        .returning(ShardRow.job_id)
    )
    job_id = session.scalars(statement.execution_options(synchronize_session=False)).first()
    if job_id is None:
        raise LeaseLost(shard_id, attempt)
    return job_id


# --- Expired leases -----------------------------------------------------------------------------------------------


def list_expired(session: Session, now: datetime, *, limit: int = 100) -> Sequence[ShardRow]:
    """Shards whose lease ran out before `now`, as they are at this moment."""
    statement = select(ShardRow).where(ShardRow.state == ShardState.leased, ShardRow.lease_expires_at < now)
    return session.scalars(statement.order_by(ShardRow.lease_expires_at).limit(limit)).all()


def lock_unchanged(session: Session, seen: ShardRow) -> ShardRow | None:
    """The shard, locked until the transaction ends; None where its attempt renewed, wrote or ended since."""
    statement = select(ShardRow).where(
        ShardRow.id == seen.id,
        ShardRow.attempt == seen.attempt,
        ShardRow.state == ShardState.leased,
        ShardRow.lease_expires_at == seen.lease_expires_at,
        func.jsonb_array_length(ShardRow.parts) == len(seen.parts),
    )
    return session.scalars(statement.with_for_update(skip_locked=True)).first()


def cancel_leftovers(session: Session, *, limit: int = 5000) -> int:
    """waiting or dispatched -> cancelled for shards of cancelled jobs, however they came to be waiting; how many."""
    leftovers = (
        select(ShardRow.id)
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .where(
            JobRow.cancel_requested_at.is_not(None),
            JobRow.state == JobState.running,
            ShardRow.state.in_([ShardState.waiting, ShardState.dispatched]),
        )
        .limit(limit)
        .with_for_update(of=ShardRow, skip_locked=True)
    )
    statement = (
        update(ShardRow)
        .where(ShardRow.id.in_(leftovers))
        .values(state=ShardState.cancelled, finished_at=func.clock_timestamp())
        .returning(ShardRow.id)
    )
    return len(session.execute(statement.execution_options(synchronize_session=False)).all())


def find_shard(session: Session, shard_id: int) -> ShardRow | None:
    return session.get(ShardRow, shard_id)


def retry_expired(session: Session, shard: ShardRow, crashes: int) -> None:
    """leased -> waiting for a locked shard whose worker went silent."""
    _leave_lease(session, shard, "shard.lease_expired", ShardState.waiting, crashes=crashes)


def cancel_expired(session: Session, shard: ShardRow) -> None:
    """leased -> cancelled for a locked shard whose worker went silent after its job was cancelled."""
    _leave_lease(session, shard, "shard.cancelled", ShardState.cancelled, crashes=shard.crashes)


def halve_expired(session: Session, shard: ShardRow, boundary: int, crashes: int) -> None:
    """One locked shard becomes two, at the item `boundary`; each keeps of the parts what belongs to its items."""
    end = shard.first_index + shard.num_items
    second = ShardRow(
        job_id=shard.job_id,
        items_key=shard.items_key,
        first_index=boundary,
        num_items=end - boundary,
        state=ShardState.waiting,
        crashes=crashes,
    )
    parts = parts_of(shard)
    shard.num_items = boundary - shard.first_index
    _set_parts(second, parts)
    _set_parts(shard, parts)
    _leave_lease(session, shard, "shard.halved", ShardState.waiting, crashes=crashes, boundary=boundary)
    session.flush()
    session.add(second)


def finish_expired(session: Session, shard: ShardRow, part: Part, failure: ItemFailure) -> None:
    """leased -> done for a locked shard whose last item is given up."""
    shard.parts = [*shard.parts, part.as_json()]
    shard.num_failures += part.num_failures
    insert_failures(session, shard.job_id, [failure])
    _leave_lease(session, shard, "shard.given_up", ShardState.done, crashes=shard.crashes, index=failure.index)
    shard.finished_at = func.clock_timestamp()


def parts_of(shard: ShardRow) -> list[Part]:
    return [Part.from_json(part) for part in shard.parts]


def _set_parts(shard: ShardRow, parts: Sequence[Part]) -> None:
    own = [part.clipped(shard.first_index, shard.first_index + shard.num_items) for part in parts]
    own = [part for part in own if part.results or part.failures]
    shard.parts = [part.as_json() for part in own]
    shard.num_results = sum(part.num_results for part in own)
    shard.num_failures = sum(part.num_failures for part in own)


def _leave_lease(
    session: Session, shard: ShardRow, event: str, state: ShardState, *, crashes: int, **data: Any
) -> None:
    events.record(
        session,
        event,
        job_id=shard.job_id,
        shard_id=shard.id,
        attempt=shard.attempt,
        worker=shard.worker_id,
        crashes=crashes,
        **data,
    )
    shard.state, shard.crashes, shard.worker_id, shard.lease_expires_at = state, crashes, None, None


def _from_now(seconds: float) -> Any:
    return func.clock_timestamp() + cast(func.concat(seconds, literal(" seconds", Text)), Interval)


def _failure_values(failure: ItemFailure) -> dict[str, Any]:
    return {
        "index": failure.index,
        "item_id": failure.item_id,
        "code": failure.code,
        "message": failure.message,
        "attempts": failure.attempts,
    }
