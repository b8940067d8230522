"""What teams may and do use: limits in their rows, what is begun from open shards, what a day computed from its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import date

from sqlalchemy import ColumnElement, Date, cast, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from orchestrator.db import workers
from orchestrator.db.ownership import EVERY_TEAM
from orchestrator.db.tables import JobRow, ShardRow, TeamDayRow, TeamRow
from orchestrator.db.teams import get_team
from orchestrator.domain.quotas import Quota, Use, check_stored
from orchestrator.domain.shards import ShardState

BEGUN = (ShardState.dispatched, ShardState.leased)


def unfinished() -> ColumnElement[int]:
    """Items of a shard without a result."""
    return ShardRow.num_items - ShardRow.num_results - ShardRow.num_failures


def countable() -> ColumnElement[int]:
    """Items of a shard that its day will count."""
    return ShardRow.num_items - ShardRow.num_reused


def computed() -> ColumnElement[int]:
    """Items of a shard that its day counts when it ends now; what was used again was not computed."""
    return ShardRow.num_results + ShardRow.num_failures - ShardRow.num_reused


def quota_of(team: TeamRow) -> Quota:
    return Quota(team.quota_in_flight, team.quota_per_day, team.quota_stored_bytes)


def set_quota(session: Session, team_id: str, quota: Quota) -> TeamRow:
    """From the dispatcher's next round and the next request on. Raises NotFound."""
    team = get_team(session, team_id)
    team.quota_in_flight, team.quota_per_day = quota.in_flight, quota.per_day
    team.quota_stored_bytes = quota.stored_bytes
    session.flush()
    return team


def uses_of(session: Session, team_ids: Collection[str], day: date) -> dict[str, Use]:
    """What teams use, of every model; one that uses nothing may be missing.

    What waits in the queue of a model that no worker serves now does not count: it would hold up all else for as long.
    """
    served = workers.models_served(session)
    begun = union_all(  # each state by its own index, which holds open shards only
        *(
            select(
                ShardRow.job_id,
                literal(state.value).label("state"),
                func.sum(unfinished()).label("open"),
                func.sum(countable()).label("countable"),
            )
            .where(ShardRow.state == state)
            .group_by(ShardRow.job_id)
            for state in BEGUN
        )
    ).subquery()
    of_teams = (
        select(JobRow.team_id, func.sum(begun.c.open), func.sum(begun.c.countable))
        .join(JobRow, JobRow.id == begun.c.job_id)
        .where(JobRow.team_id.in_(list(team_ids)))
        .where((begun.c.state == ShardState.leased) | JobRow.model.in_(served))
        .group_by(JobRow.team_id)
    )
    of_day = select(TeamDayRow.team_id, TeamDayRow.num_items).where(
        TeamDayRow.team_id.in_(list(team_ids)), TeamDayRow.day == day
    )
    # In this order a shard that ends in between counts twice for a moment, and in the other one not at all.
    begun_now = session.execute(of_teams, execution_options=EVERY_TEAM).all()
    today: Counter[str] = Counter(dict(session.execute(of_day, execution_options=EVERY_TEAM).all()))
    uses = {team_id: Use(0, num_items) for team_id, num_items in today.items()}
    for team_id, is_open, will_count in begun_now:
        uses[team_id] = Use(int(is_open), today[team_id] + int(will_count))
    return uses


def count_ended(session: Session, ended: Iterable[tuple[str, int]]) -> None:
    """Count what shards computed, each as (its job, items), in the transaction that ends them: so each counts once."""
    of_jobs: Counter[str] = Counter()
    for job_id, num_items in ended:
        of_jobs[job_id] += num_items
    of_jobs += Counter()  # without those that computed nothing
    if not of_jobs:
        return
    of_teams: Counter[str] = Counter()
    for job_id, team_id in session.execute(select(JobRow.id, JobRow.team_id).where(JobRow.id.in_(list(of_jobs)))):
        of_teams[team_id] += of_jobs[job_id]
    day = cast(func.timezone("UTC", func.clock_timestamp()), Date)
    for team_id, num_items in sorted(of_teams.items()):  # always in this order, so that nobody waits for each other
        statement = insert(TeamDayRow).values(team_id=team_id, day=day, num_items=num_items)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[TeamDayRow.team_id, TeamDayRow.day],
                set_={"num_items": TeamDayRow.num_items + statement.excluded.num_items},
            )
        )


def require_space(session: Session, team_id: str) -> None:
    """Raises InvalidRequest, `quota_exceeded`, where a team keeps as much in the store as it may."""
    team = get_team(session, team_id)
    check_stored(quota_of(team), team.stored_bytes, team.stored_at)
