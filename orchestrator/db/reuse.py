"""Results that a team has: which committed part holds the result of an identity."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from orchestrator.db.tables import JobRow, ReusablePartRow
from orchestrator.domain.shards import Part


@dataclass(frozen=True)
class Place:
    """Where a result is: the line of one item in a part. `is_fading`: it is in the second half of its days."""

    job_id: str
    key: str
    sha256: str
    num_bytes: int
    index: int
    is_fading: bool


def remember(session: Session, job_id: str, part: Part, identities: Mapping[UUID, int]) -> None:
    """Note which identities a part holds results of; belongs into the transaction that makes the part true."""
    if identities:
        row = ReusablePartRow(
            key=part.key,
            job_id=job_id,
            sha256=part.sha256,
            num_bytes=part.num_bytes,
            identities=list(identities),
            item_indexes=list(identities.values()),
        )
        session.add(row)


def find(session: Session, team_id: str, identities: Set[UUID], *, days: int) -> dict[UUID, Place]:
    """Those of the identities that a part of a job of the team holds, the newest part first.

    Of a job that was deleted nothing is found from the moment it is marked.
    """
    age = func.clock_timestamp() - ReusablePartRow.created_at
    statement = select(ReusablePartRow, age > func.make_interval(0, 0, 0, 0, days * 12)).where(
        ReusablePartRow.identities.overlap(list(identities)), age < func.make_interval(0, 0, 0, days)
    )
    # The planner expects half a percent of all rows for each identity, and would read the table: 120 ms, and not one.
    session.execute(text("SET LOCAL enable_seqscan = off"))
    rows = sorted(session.execute(statement).all(), key=lambda found: found[0].created_at, reverse=True)
    jobs = select(JobRow.id).where(JobRow.id.in_({row.job_id for row, _ in rows}), JobRow.team_id == team_id)
    live = set(session.scalars(jobs.where(JobRow.deleted_at.is_(None)))) if rows else set()
    found = dict[UUID, Place]()
    for row, is_fading in rows:
        for identity, index in zip(row.identities, row.item_indexes, strict=True):
            if row.job_id in live and identity in identities:
                found.setdefault(identity, Place(row.job_id, row.key, row.sha256, row.num_bytes, index, is_fading))
    return found


def forget_old(session: Session, *, days: int, limit: int) -> int:
    """Delete up to so many rows that are older than that; how many there were."""
    old = (
        select(ReusablePartRow.key)
        .where(ReusablePartRow.created_at < func.clock_timestamp() - func.make_interval(0, 0, 0, days))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = delete(ReusablePartRow).where(ReusablePartRow.key.in_(old)).returning(ReusablePartRow.key)
    return len(session.scalars(statement.execution_options(synchronize_session=False)).all())
