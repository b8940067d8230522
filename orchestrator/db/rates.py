"""Measured rates: each worker adds up, by the hour, what it computed and for how long it had work to do."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db.tables import RateRow
from orchestrator.domain.estimates import Measured
from orchestrator.domain.jobs import JobKind

KEPT = timedelta(days=14)
LOOKED_AT = timedelta(hours=1)  # before the last hour that has any


def add(
    session: Session, worker_id: str, model: str, kind: JobKind | str, *, num_items: int, work: float, seconds: float
) -> None:
    """What a worker computed, and the seconds that it took; the row is the worker's own, so nobody waits for it."""
    now = func.clock_timestamp()
    statement = insert(RateRow).values(
        model=model,
        kind=str(kind),
        hour=func.date_trunc("hour", now),
        worker_id=worker_id,
        num_items=num_items,
        work=work,
        seconds=seconds,
        last_at=now,
    )
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[RateRow.model, RateRow.kind, RateRow.hour, RateRow.worker_id],
            set_={
                "num_items": RateRow.num_items + new.num_items,
                "work": RateRow.work + new.work,
                "seconds": RateRow.seconds + new.seconds,
                "last_at": new.last_at,
            },
        )
    )


def find_measured(session: Session, model: str, kind: JobKind | str) -> Measured | None:
    """What was measured in the last hour that has a measurement, and the one before; None in the last two weeks."""
    of_these = (RateRow.model == model, RateRow.kind == str(kind))
    newest = select(func.max(RateRow.hour)).where(*of_these, RateRow.hour > func.now() - KEPT).scalar_subquery()
    statement = select(
        func.sum(RateRow.num_items),
        func.sum(RateRow.work),
        func.sum(RateRow.seconds),
        func.count(RateRow.worker_id.distinct()),
        func.min(RateRow.hour),
        func.max(RateRow.last_at),
    ).where(*of_these, RateRow.hour >= newest - LOOKED_AT)
    num_items, work, seconds, workers, since, until = session.execute(statement).one()
    if not work or not seconds:
        return None
    return Measured(int(num_items), float(work), float(seconds), int(workers), since, until)


def prune(session: Session) -> None:
    """Forget what was measured long ago."""
    statement = delete(RateRow).where(RateRow.hour < func.now() - KEPT)
    session.execute(statement.execution_options(synchronize_session=False))
