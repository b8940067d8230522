"""Teams and keys, for those who hold the scope `admin`."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.api.dependencies import Admin, AnyCaller, Audit, DbSession, Id, Reader
from orchestrator.api.quota_views import view_quota
from orchestrator.db import quotas, teams
from orchestrator.db.tables import KeyRow, TeamRow
from orchestrator.domain.quotas import Quota
from orchestrator.schemas import (
    KeyCreate,
    KeyRotate,
    KeysView,
    KeyView,
    Name,
    NewKeyView,
    QuotaPut,
    QuotaView,
    TeamChange,
    TeamCreate,
    TeamsView,
    TeamView,
    WhoAmI,
)

router = APIRouter(prefix="/v1", tags=["teams"])


@router.get("/whoami")
def whoami(session: DbSession, caller: AnyCaller) -> WhoAmI:
    """The team and scopes of the key that asks."""
    team = teams.get_team(session, caller.team_id)
    return WhoAmI(team=_view_team(team), key_id=caller.key_id, scopes=sorted(caller.scopes))


@router.post("/teams", status_code=201, responses={409: {}})
def create_team(body: TeamCreate, session: DbSession, caller: Admin, audit: Audit) -> TeamView:
    team = teams.create_team(session, body.name)
    audit.record("team.created", team.id, name=team.name)
    return _view_team(team)


@router.get("/teams")
def list_teams(session: DbSession, caller: Admin) -> TeamsView:
    return TeamsView(teams=[_view_team(team) for team in teams.list_teams(session)])


@router.patch("/teams/{team_id}", responses={404: {}})
def change_team(team_id: Id, body: TeamChange, session: DbSession, caller: Admin, audit: Audit) -> TeamView:
    """Set how many turns a team gets beside the others."""
    team = teams.set_weight(session, team_id, body.weight)
    audit.record("team.changed", team.id, weight=team.weight)
    return _view_team(team)


@router.put("/teams/{team_id}/quotas", responses={404: {}})
def put_quota(team_id: Id, body: QuotaPut, session: DbSession, caller: Admin, audit: Audit) -> QuotaView:
    """Set what a team may use, in place of all that was set before."""
    team = quotas.set_quota(session, team_id, Quota(body.in_flight, body.per_day, body.stored_bytes))
    audit.record("team.quota_set", team.id, **body.model_dump())
    return view_quota(session, team)


@router.get("/teams/{team_id}/quotas", responses={404: {}})
def get_quota(team_id: Id, session: DbSession, caller: Admin) -> QuotaView:
    """What a team may use, and what it does."""
    return view_quota(session, teams.get_team(session, team_id))


@router.get("/quotas")
def get_own_quota(session: DbSession, caller: Reader) -> QuotaView:
    """What the team of the key may use, and what it does."""
    return view_quota(session, teams.get_team(session, caller.team_id))


@router.post("/keys", status_code=201, responses={404: {}})
def create_key(body: KeyCreate, session: DbSession, caller: Admin, audit: Audit) -> NewKeyView:
    """The answer holds the key: it is shown this once."""
    team = teams.get_team(session, body.team)
    row, key = teams.create_key(session, team.id, name=body.name, scopes=body.scopes, expires_at=body.expires_at)
    audit.record("key.created", row.id, of_team=team.id, scopes=row.scopes)
    return NewKeyView(key=key.text, **_view_key(row).model_dump())


@router.get("/keys", responses={404: {}})
def list_keys(session: DbSession, caller: Admin, team: Name | None = None) -> KeysView:
    team_id = teams.get_team(session, team).id if team else None
    return KeysView(keys=[_view_key(row) for row in teams.list_keys(session, team_id)])


@router.post("/keys/{key_id}/rotate", status_code=201, responses={404: {}, 409: {}})
def rotate_key(key_id: Id, body: KeyRotate, session: DbSession, caller: Admin, audit: Audit) -> NewKeyView:
    """A new key of the same team, name and scopes; the old one works for `overlap_days` more."""
    row, key = teams.rotate_key(session, key_id, overlap_days=body.overlap_days)
    audit.record("key.rotated", key_id, of_team=row.team_id, new_key=row.id, overlap_days=body.overlap_days)
    return NewKeyView(key=key.text, **_view_key(row).model_dump())


@router.delete("/keys/{key_id}", status_code=204, responses={404: {}})
def revoke_key(key_id: Id, session: DbSession, caller: Admin, audit: Audit) -> Response:
    """From the next request on the key is refused."""
    teams.revoke_key(session, key_id)
    audit.record("key.revoked", key_id)
    return Response(status_code=204)


def _view_team(team: TeamRow) -> TeamView:
    return TeamView(id=team.id, name=team.name, weight=team.weight, created_at=team.created_at)


def _view_key(row: KeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        team_id=row.team_id,
        name=row.name,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        rotated_at=row.rotated_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
