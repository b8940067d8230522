"""What an attempt may do with its shard. Every write names shard and attempt, and changes nothing once it is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Text, cast, func, literal, select, tuple_, update
from sqlalchemy.orm import Session

from orchestrator.db import events, quotas, reuse
from orchestrator.db.session import database_now
from orchestrator.db.shards import ItemFailure, insert_failures
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.shards import Part, ShardState


class LeaseLost(Exception):
    """The shard is no longer this attempt's: stop, and write nothing more."""

    def __init__(self, shard_id: int, attempt: int) -> None:
        super().__init__(f"attempt {attempt} no longer holds shard {shard_id}; a newer attempt or a cancel took it")
        self.shard_id = shard_id
        self.attempt = attempt


def take_lease(
    session: Session, shard_id: int, attempt: int, *, worker_id: str, lease_seconds: float
) -> ShardRow | None:
    """dispatched -> leased. None where the message is old: the shard is held, over, or its window closed."""
    statement = (
        update(ShardRow)
        .where(
            ShardRow.id == shard_id,
            ShardRow.attempt == attempt,
            ShardRow.state == ShardState.dispatched,
            ShardRow.closes_at.is_(None) | (ShardRow.closes_at > func.clock_timestamp()),
            ShardRow.job_id.in_(select(JobRow.id).where(JobRow.cancel_requested_at.is_(None))),
        )
        .values(state=ShardState.leased, worker_id=worker_id, lease_expires_at=_from_now(lease_seconds))
        .returning(ShardRow)
    )
    return session.scalars(statement).first()


def seconds_left(session: Session, shard: ShardRow) -> float | None:
    """Until its job's window closes, by the database's clock; None where nothing closes."""
    return None if shard.closes_at is None else (shard.closes_at - database_now(session)).total_seconds()


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


def append_part(
    session: Session,
    shard_id: int,
    attempt: int,
    part: Part,
    failures: Sequence[ItemFailure],
    identities: Mapping[UUID, int] = MappingProxyType({}),
) -> None:
    """Make a stored part true: named by the row, counted, its failures recorded; and the crash count starts afresh.

    identities: of those of its results that may be used again, with the item's index.

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
    shard.num_reused += part.num_reused
    shard.crashes = 0
    insert_failures(session, shard.job_id, failures)
    reuse.remember(session, shard.job_id, part, identities)


def finish_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """leased -> done; the table refuses it unless every item has a result or a failure. Raises LeaseLost."""
    job_id = _end(session, shard_id, attempt, ShardState.done)
    events.record(session, "shard.done", job_id=job_id, shard_id=shard_id, attempt=attempt)


def cancel_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """leased -> cancelled, what is finished kept. Raises LeaseLost."""
    job_id = _end(session, shard_id, attempt, ShardState.cancelled)
    events.record(session, "shard.cancelled", job_id=job_id, shard_id=shard_id, attempt=attempt)


def release_shard_if_leased(
    session: Session, shard_id: int, attempt: int, *, reason: str, delay_seconds: float
) -> None:
    """leased -> waiting: the attempt stops through no fault of its items. Raises LeaseLost."""
    job_id, _ = _fenced(
        session,
        shard_id,
        attempt,
        state=ShardState.waiting,
        releases=ShardRow.releases + (1 if delay_seconds else 0),  # faults count, giving way does not
        not_before=_from_now(delay_seconds) if delay_seconds else None,
        lease_expires_at=None,
        worker_id=None,
    )
    events.record(session, "shard.released", job_id=job_id, shard_id=shard_id, attempt=attempt, reason=reason)


def expire_shard_if_leased(session: Session, shard_id: int, attempt: int) -> None:
    """End the lease now: the attempt failed for a reason nobody foresaw, so the reaper judges it. Raises LeaseLost."""
    job_id, _ = _fenced(session, shard_id, attempt, lease_expires_at=func.clock_timestamp())
    events.record(session, "shard.crashed", job_id=job_id, shard_id=shard_id, attempt=attempt)


def _end(session: Session, shard_id: int, attempt: int, state: ShardState) -> str:
    """The shard is over, and its team's day counts what was computed of it; its job."""
    ended = _fenced(session, shard_id, attempt, state=state, finished_at=func.clock_timestamp(), lease_expires_at=None)
    quotas.count_ended(session, [ended])
    return ended[0]


def _fenced(session: Session, shard_id: int, attempt: int, **values: Any) -> tuple[str, int]:
    """The one door for writes of an attempt: they change nothing unless it still holds the lease.

    The shard's job, and how many of its items were computed.
    """
    statement = (
        update(ShardRow)
        .where(ShardRow.id == shard_id, ShardRow.attempt == attempt, ShardRow.state == ShardState.leased)
        .values(**values)
        .returning(ShardRow.job_id, quotas.computed())
    )
    row = session.execute(statement.execution_options(synchronize_session=False)).first()
    if row is None:
        raise LeaseLost(shard_id, attempt)
    return row[0], row[1]


def _from_now(seconds: float) -> Any:
    return func.clock_timestamp() + cast(func.concat(seconds, literal(" seconds", Text)), Interval)
