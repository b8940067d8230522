"""What people look at: a job at a glance. No query here reads a row for each item; at most one for each shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Text, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from orchestrator.db.tables import EventRow, FailureRow, KeyRow, ShardRow, TeamRow
from orchestrator.domain.failures import FAILURE_CODES

MAX_COUNTED = 10_000  # failures of one code; what is beyond is told as "more"


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one code: how many, up to MAX_COUNTED + 1, and the first of them."""

    code: str
    count: int
    examples: Sequence[FailureRow]


def failure_groups(session: Session, job_id: str, *, examples: int) -> list[FailureGroup]:
    """By code, the most frequent first. Each code is counted along its own stretch of the index, and only so far."""
    counts = {code: _count_code(session, job_id, code) for code in codes_of(session, job_id)}
    return [
        FailureGroup(code, count, list_by_code(session, job_id, code, after_index=-1, limit=examples))
        for code, count in sorted(counts.items(), key=lambda pair: -pair[1])
    ]


def codes_of(session: Session, job_id: str) -> list[str]:
    """The codes with which items of a job failed."""
    known = func.unnest(literal(sorted(FAILURE_CODES), ARRAY(Text))).column_valued("known_code")
    occurs = select(FailureRow.index).where(FailureRow.job_id == job_id, FailureRow.code == known).exists()
    return list(session.scalars(select(known).where(occurs)))


def _count_code(session: Session, job_id: str, code: str) -> int:
    some = select(FailureRow.index).where(FailureRow.job_id == job_id, FailureRow.code == code).limit(MAX_COUNTED + 1)
    return session.scalars(select(func.count()).select_from(some.subquery())).one()


def list_by_code(session: Session, job_id: str, code: str, *, after_index: int, limit: int) -> Sequence[FailureRow]:
    """A job's failures of one code, in item order."""
    statement = select(FailureRow).where(
        FailureRow.job_id == job_id, FailureRow.code == code, FailureRow.index > after_index
    )
    return session.scalars(statement.order_by(FailureRow.index).limit(limit)).all()


def shards_covering(session: Session, job_id: str, first: int, end: int) -> Sequence[ShardRow]:
    """The shards that hold the items [first, end), in item order."""
    earlier = aliased(ShardRow)
    begins = (
        select(func.max(earlier.first_index))
        .where(earlier.job_id == job_id, earlier.first_index <= first)
        .scalar_subquery()
    )
    statement = select(ShardRow).where(
        ShardRow.job_id == job_id, ShardRow.first_index >= func.coalesce(begins, first), ShardRow.first_index < end
    )
    return session.scalars(statement.order_by(ShardRow.first_index)).all()


def throughput(session: Session, job_id: str, begin: datetime, end: datetime, *, bins: int) -> list[int]:
    """Items of the shards that finished in each of so many equal stretches of time."""
    stretch = func.width_bucket(
        func.extract("epoch", ShardRow.finished_at), begin.timestamp(), end.timestamp() + 1e-3, bins
    )
    statement = (
        select(stretch, func.sum(ShardRow.num_results + ShardRow.num_failures))
        .where(ShardRow.job_id == job_id, ShardRow.finished_at.is_not(None))
        .group_by(stretch)
    )
    counts = [0] * bins
    for number, count in session.execute(statement):
        counts[min(max(number, 1), bins) - 1] += int(count)
    return counts


def last_events(session: Session, job_id: str, *, limit: int) -> Sequence[EventRow]:
    """The newest first."""
    return session.scalars(
        select(EventRow).where(EventRow.job_id == job_id).order_by(EventRow.id.desc()).limit(limit)
    ).all()


def teams_with_keys(session: Session) -> list[tuple[TeamRow, int, datetime | None]]:
    """Each team, how many of its keys are live, and when one was last used."""
    live = KeyRow.revoked_at.is_(None) & (KeyRow.expires_at.is_(None) | (KeyRow.expires_at > func.now()))
    statement = (
        select(TeamRow, func.count(KeyRow.id).filter(live), func.max(KeyRow.last_used_at))
        .outerjoin(KeyRow, KeyRow.team_id == TeamRow.id)
        .group_by(TeamRow.id)
        .order_by(TeamRow.name)
    )
    return [(team, keys, used) for team, keys, used in session.execute(statement)]
