"""Shards as they are planned and looked at. How they move: `queueing`, `leases` and `expiry`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.tables import FailureRow, ShardRow
from orchestrator.domain.shards import Part, ShardState

# Ids of jobs with a shard in the queue or in a worker's hands, once for each. Each state by its own index, which holds
# open shards only: those of a job that are done are not looked at.
IN_FLIGHT = union_all(
    select(ShardRow.job_id).where(ShardRow.state == ShardState.dispatched),
    select(ShardRow.job_id).where(ShardRow.state == ShardState.leased),
)


@dataclass(frozen=True)
class ItemFailure:
    """A failure as its row says it."""

    index: int
    item_id: str
    code: str
    message: str
    attempts: int


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be: its items, and in which bytes of which object their lines are."""

    first_index: int
    num_items: int
    items_key: str
    items_offset: int
    items_bytes: int


def add_shards(session: Session, job_id: str, planned: Sequence[PlannedShard]) -> None:
    session.execute(insert(ShardRow), [{"job_id": job_id, **asdict(shard)} for shard in planned])


def get_shard(session: Session, shard_id: int) -> ShardRow:
    return session.get_one(ShardRow, shard_id)


def list_shards(session: Session, job_id: str, *, from_index: int = 0, limit: int = 1000) -> Sequence[ShardRow]:
    """A job's shards in item order, from the one that starts at `from_index` or later."""
    statement = select(ShardRow).where(ShardRow.job_id == job_id, ShardRow.first_index >= from_index)
    return session.scalars(statement.order_by(ShardRow.first_index).limit(limit)).all()


def failed_by_object(session: Session, job_id: str, codes: Sequence[str] = ()) -> Iterator[tuple[str, frozenset[int]]]:
    """For each items object of a job with failures: its key, and the indexes that failed, in item order.

    Args:
        codes: of the failures that count; none are all.
    """
    inside = (FailureRow.index >= ShardRow.first_index) & (FailureRow.index < ShardRow.first_index + ShardRow.num_items)
    statement = (
        select(ShardRow.items_key, func.array_agg(FailureRow.index))
        .join(FailureRow, (FailureRow.job_id == ShardRow.job_id) & inside)
        .where(ShardRow.job_id == job_id)
        .group_by(ShardRow.items_key)
        .order_by(func.min(FailureRow.index))
    )
    if codes:
        statement = statement.where(FailureRow.code.in_(codes))
    for key, indexes in session.execute(statement).all():
        yield key, frozenset(indexes)


def find_shard(session: Session, shard_id: int) -> ShardRow | None:
    return session.get(ShardRow, shard_id)


def parts_of(shard: ShardRow) -> list[Part]:
    return [Part.from_json(part) for part in shard.parts]


def insert_failures(session: Session, job_id: str, failures: Sequence[ItemFailure]) -> None:
    if failures:
        rows = [{"job_id": job_id, **_failure_values(failure)} for failure in failures]
        session.execute(insert(FailureRow), rows)


def _failure_values(failure: ItemFailure) -> dict[str, Any]:
    return {
        "index": failure.index,
        "item_id": failure.item_id,
        "code": failure.code,
        "message": failure.message,
        "attempts": failure.attempts,
    }
