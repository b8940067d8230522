"""Waiting shards to messages: what may run, and what nobody answered. `domain.turns` says who is next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Integer, cast, func, select, true, update
from sqlalchemy.orm import Session

from orchestrator.db import quotas
from orchestrator.db.ownership import EVERY_TEAM
from orchestrator.db.session import wait_for_lock
from orchestrator.db.shards import IN_FLIGHT
from orchestrator.db.tables import JobRow, ShardRow, TeamRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.quotas import Load, Quota, Rooms, day_of
from orchestrator.domain.shards import ShardState
from orchestrator.domain.turns import Queued

_MAY_RUN = (JobRow.state == JobState.running, JobRow.paused_at.is_(None), JobRow.cancel_requested_at.is_(None))
"""As the index ix_jobs_turn has it."""


@dataclass(frozen=True)
class Message:
    """What the broker carries: ids only. An express message is taken before all that are not."""

    shard_id: int
    attempt: int
    model: str
    is_express: bool = False


@dataclass(frozen=True)
class ReadyShard:
    """A waiting shard that may run now, if its team's quota lets it. cost: answers that it will take."""

    id: int
    team_id: str
    weight: int
    cost: int
    run_window: str | None
    load: Load
    quota: Quota


@dataclass(frozen=True)
class InFlight:
    """A job that has a shard in the queue or in a worker's hands."""

    job_id: str
    model: str
    team_id: str


def jobs_in_flight(session: Session, models: Collection[str]) -> list[InFlight]:
    """Of all teams."""
    statement = select(JobRow.id, JobRow.model, JobRow.team_id).where(
        JobRow.id.in_(IN_FLIGHT), JobRow.model.in_(list(models))
    )
    return [InFlight(*row) for row in session.execute(statement, execution_options=EVERY_TEAM)]


def models_of_running_jobs(session: Session) -> Sequence[str]:
    return session.scalars(select(JobRow.model).where(*_MAY_RUN).distinct()).all()


def run_windows(session: Session, model: str) -> list[str]:
    """Those of the model's jobs that have one: few, however many jobs share them."""
    statement = select(JobRow.run_window).where(*_MAY_RUN, JobRow.model == model).distinct()
    return [window for window in session.scalars(statement) if window is not None]


def list_queued(session: Session, model: str) -> list[Queued]:
    """What is dispatched and not leased, in the order in which it was."""
    statement = (
        select(ShardRow.id, JobRow.team_id, TeamRow.weight, _cost())
        .join(JobRow, JobRow.id == ShardRow.job_id)
        .join(TeamRow, TeamRow.id == JobRow.team_id)
        .where(ShardRow.state == ShardState.dispatched, JobRow.model == model)
        .order_by(ShardRow.dispatched_at, ShardRow.id)
    )
    return [Queued(shard_id, team_id, weight, cost) for shard_id, team_id, weight, cost in session.execute(statement)]


def list_ready(
    session: Session, model: str, *, open_windows: Collection[str], limit: int, teams: Collection[str] = ()
) -> list[ReadyShard]:
    """The next `limit` shards of each team, or of these teams: by priority, then the older job, then item order.

    Two nested loops over indexes in just this order, which end after `limit` shards: a million that wait behind them
    are not looked at.

    Args:
        open_windows: those whose jobs may start a shard now.
    """
    in_window = JobRow.run_window.is_(None) | JobRow.run_window.in_(list(open_windows))
    waiting = (
        select(
            ShardRow.id,
            ShardRow.first_index,
            _cost().label("cost"),
            quotas.unfinished().label("unfinished"),
            quotas.countable().label("countable"),
        )
        .where(ShardRow.job_id == JobRow.id, ShardRow.state == ShardState.waiting)
        .where(ShardRow.not_before.is_(None) | (ShardRow.not_before <= func.clock_timestamp()))
        .order_by(ShardRow.first_index)
        .limit(limit)
        .lateral("waiting")
    )
    ready = (
        select(waiting.c.id, waiting.c.cost, JobRow.run_window, waiting.c.unfinished, waiting.c.countable)
        .select_from(JobRow)
        .join(waiting, true())
        .where(*_MAY_RUN, JobRow.model == model, JobRow.team_id == TeamRow.id, in_window)
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id, waiting.c.first_index)
        .limit(limit)
        .lateral("ready")
    )
    shard = (ready.c.id, TeamRow.id, TeamRow.weight, ready.c.cost, ready.c.run_window)
    quota = (ready.c.unfinished, ready.c.countable, TeamRow.quota_in_flight, TeamRow.quota_per_day)
    statement = select(*shard, *quota).select_from(TeamRow).join(ready, true())
    if teams:
        statement = statement.where(TeamRow.id.in_(list(teams)))
    return [
        ReadyShard(shard_id, team_id, weight, cost, window, Load(unfinished, countable), Quota(in_flight, per_day))
        for shard_id, team_id, weight, cost, window, unfinished, countable, in_flight, per_day in session.execute(
            statement
        )
    ]


def rooms_of(session: Session, ready: Sequence[ReadyShard], now: datetime) -> Rooms:
    """What the teams of these shards may still begin; until the transaction ends, no other dispatcher begins for them.

    Asks nothing where none of them has a quota.
    """
    limits = {shard.team_id: shard.quota for shard in ready if shard.quota.limits_turns}
    if not limits:
        return Rooms({}, {})
    wait_for_lock(session, "quotas")
    return Rooms(limits, quotas.uses_of(session, limits, day_of(now)))


def dispatch(
    session: Session, model: str, shard_ids: Collection[int], *, closes_at: datetime | None = None
) -> list[Message]:
    """waiting -> dispatched for those of the shards that still may run, and count their attempts."""
    may_run = select(JobRow.id).where(JobRow.id == ShardRow.job_id, *_MAY_RUN).exists()
    claimed = (
        select(ShardRow.id)
        .where(ShardRow.id.in_(list(shard_ids)), ShardRow.state == ShardState.waiting, may_run)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(ShardRow)
        .where(ShardRow.id.in_(claimed), ShardRow.state == ShardState.waiting)
        .values(
            state=ShardState.dispatched,
            attempt=ShardRow.attempt + 1,
            dispatched_at=func.clock_timestamp(),
            published_at=func.clock_timestamp(),
            closes_at=closes_at,
            not_before=None,
        )
        .returning(ShardRow.id, ShardRow.attempt)
    )
    rows = session.execute(statement.execution_options(synchronize_session=False)).all()
    return [Message(shard_id, attempt, model) for shard_id, attempt in rows]


def take_back_closed(session: Session) -> int:
    """dispatched -> waiting for shards that nobody leased before their job's window closed; how many."""
    closed = (
        select(ShardRow.id)
        .where(ShardRow.state == ShardState.dispatched, ShardRow.closes_at <= func.clock_timestamp())
        .with_for_update(skip_locked=True)
    )
    statement = update(ShardRow).where(ShardRow.id.in_(closed)).values(state=ShardState.waiting).returning(ShardRow.id)
    return len(session.execute(statement.execution_options(synchronize_session=False)).all())


def count_dispatched(session: Session, model: str) -> int:
    statement = select(func.count()).select_from(ShardRow).join(JobRow)
    return session.scalars(statement.where(ShardRow.state == ShardState.dispatched, JobRow.model == model)).one()


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


def _cost() -> ColumnElement[int]:
    """Answers that a shard still has to give: what its turn is charged for."""
    images = cast(func.coalesce(JobRow.options["images"].astext, "1"), Integer)
    return func.greatest(1, (ShardRow.num_items - ShardRow.num_results - ShardRow.num_failures) * images)
