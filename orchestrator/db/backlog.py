"""What waits for the workers of a model, job by job: counted in the indexes of open shards, not item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from orchestrator.db import quotas
from orchestrator.db.ownership import EVERY_TEAM
from orchestrator.db.tables import JobRow, ShardRow, TeamRow
from orchestrator.domain.jobs import JobState
from orchestrator.domain.shards import ShardState


@dataclass(frozen=True)
class Backlog:
    """A running job's items that are not finished; of shards that wait a full one is counted for each."""

    team_id: str
    weight: int
    kind: str
    options: dict[str, Any]
    priority: int
    num_items: int


def list_backlog(session: Session, model: str) -> list[Backlog]:
    """Of all teams' running jobs that are not paused."""
    of_model = (JobRow.id == ShardRow.job_id) & (JobRow.model == model) & (JobRow.state == JobState.running)
    waiting = select(ShardRow.job_id, func.count().label("shards"), func.min(0).label("num_left"))
    parts = [waiting.join(JobRow, of_model).where(ShardRow.state == ShardState.waiting).group_by(ShardRow.job_id)]
    for state in quotas.BEGUN:
        begun = select(ShardRow.job_id, func.min(0).label("shards"), func.sum(quotas.unfinished()).label("num_left"))
        parts.append(begun.join(JobRow, of_model).where(ShardRow.state == state).group_by(ShardRow.job_id))
    of_jobs = union_all(*parts).subquery()
    num_items = func.least(func.sum(of_jobs.c.shards * JobRow.shard_items + of_jobs.c.num_left), JobRow.num_items)
    statement = (
        select(JobRow.team_id, TeamRow.weight, JobRow.kind, JobRow.options, JobRow.priority, num_items)
        .join(of_jobs, of_jobs.c.job_id == JobRow.id)
        .join(TeamRow, TeamRow.id == JobRow.team_id)
        .where(JobRow.model == model, JobRow.state == JobState.running)
        .where(JobRow.paused_at.is_(None), JobRow.cancel_requested_at.is_(None))
        .group_by(JobRow.id, TeamRow.id)
    )
    rows = session.execute(statement, execution_options=EVERY_TEAM)
    return [Backlog(team, weight, kind, options, priority, int(n)) for team, weight, kind, options, priority, n in rows]
