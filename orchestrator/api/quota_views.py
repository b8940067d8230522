"""Quotas as clients see them: each limit beside what is used of it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from orchestrator.db import quotas
from orchestrator.db.session import database_now
from orchestrator.db.tables import TeamRow
from orchestrator.domain.quotas import Use, day_of, next_day
from orchestrator.schemas import QuotaUse, QuotaView


def view_quota(session: Session, team: TeamRow) -> QuotaView:
    now = database_now(session)
    quota = quotas.quota_of(team)
    use = quotas.uses_of(session, [team.id], day_of(now)).get(team.id, Use())
    is_measured = quota.stored_bytes is not None and team.stored_at is not None
    return QuotaView(
        team_id=team.id,
        in_flight=QuotaUse(limit=quota.in_flight, used=use.in_flight),
        per_day=QuotaUse(limit=quota.per_day, used=use.today),
        stored_bytes=QuotaUse(limit=quota.stored_bytes, used=team.stored_bytes if is_measured else None),
        day_ends_at=next_day(now),
        measured_at=team.stored_at if is_measured else None,
    )
