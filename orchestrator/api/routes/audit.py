"""What was done, by whom, for those who hold the scope `admin`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.api.dependencies import Admin, DbSession
from orchestrator.db import audit, teams
from orchestrator.schemas import AuditPage, AuditView, Name

router = APIRouter(prefix="/v1", tags=["audit"])


@router.get("/audit", responses={404: {}})
def list_audit(
    session: DbSession,
    caller: Admin,
    team: Name | None = None,
    before_id: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Calls that changed something, of all teams or of one, the newest first."""
    team_id = teams.get_team(session, team).id if team else None
    found = audit.list_audit(session, team_id=team_id, before_id=before_id, limit=limit)
    views = [
        AuditView(
            id=row.id,
            at=row.at,
            team_id=row.team_id,
            key_id=row.key_id,
            action=row.action,
            object_id=row.object_id,
            request_id=row.request_id,
            address=row.address,
            data=row.data,
        )
        for row in found
    ]
    return AuditPage(audit=views, next_id=found[-1].id if len(found) == limit else None)
