"""Shards whose worker went silent, and those that a cancelled job left waiting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator.db import events, quotas
from orchestrator.db.shards import ItemFailure, insert_failures, parts_of
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.shards import Part, ShardState


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
        .returning(ShardRow.job_id, quotas.computed())
    )
    ended = session.execute(statement.execution_options(synchronize_session=False)).all()
    quotas.count_ended(session, ended)
    return len(ended)


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
        items_offset=shard.items_offset,
        items_bytes=shard.items_bytes,
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


def _set_parts(shard: ShardRow, parts: Sequence[Part]) -> None:
    own = [part.clipped(shard.first_index, shard.first_index + shard.num_items) for part in parts]
    own = [part for part in own if part.results or part.failures]
    shard.parts = [part.as_json() for part in own]
    shard.num_results = sum(part.num_results for part in own)
    shard.num_failures = sum(part.num_failures for part in own)
    shard.num_reused = sum(part.num_reused for part in own)


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
    if not state.open:
        computed = shard.num_results + shard.num_failures - shard.num_reused
        session.flush()
        quotas.count_ended(session, [(shard.job_id, computed)])
