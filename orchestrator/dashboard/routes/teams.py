"""Teams and their keys, for those who hold the scope `admin`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from orchestrator.api.dependencies import Admin, Audit, DbSession, Id
from orchestrator.api.quota_views import view_quota
from orchestrator.api.routes import teams as api_teams
from orchestrator.dashboard.forms import Form, go_to, number_of, text_of
from orchestrator.dashboard.rendering import render
from orchestrator.db import overview, teams
from orchestrator.db.session import database_now
from orchestrator.domain.errors import Conflict, InvalidRequest
from orchestrator.domain.keys import SCOPES
from orchestrator.domain.sizes import parse_size
from orchestrator.schemas import KeyCreate, KeyRotate, NewKeyView, QuotaPut, TeamCreate

router = APIRouter()
NOTES = {"revoked": "Revoked. The key is refused from now on.", "quota": "Set. What was begun is finished."}


@router.get("/teams")
def list_teams(request: Request, session: DbSession, caller: Admin) -> Response:
    return _teams(request, session)


@router.post("/teams")
def create_team(request: Request, session: DbSession, caller: Admin, audit: Audit, form: Form) -> Response:
    try:
        made = api_teams.create_team(TeamCreate(name=text_of(form, "name")), session, caller, audit)
    except Conflict as error:
        return _teams(request, session, why=error.message, status=409)
    except ValidationError:
        return _teams(request, session, why="A team's name has 1 to 200 characters.", status=422)
    return go_to(f"/teams/{made.id}")


def _teams(request: Request, session: Session, *, why: str = "", status: int = 200) -> Response:
    found = overview.teams_with_keys(session)
    return render(request, "teams.html", status, teams=found, now=database_now(session), why=why)


@router.get("/teams/{team_id}")
def show_team(request: Request, team_id: Id, session: DbSession, caller: Admin, note: str = "") -> Response:
    return _team(request, session, team_id, note=NOTES.get(note, ""))


@router.post("/teams/{team_id}/keys")
def create_key(request: Request, team_id: Id, session: DbSession, caller: Admin, audit: Audit, form: Form) -> Response:
    """The page that follows holds the key, this once; so it is the answer itself, and nothing leads back to it."""
    try:
        days = number_of(form, "days", "whole")
        body = KeyCreate(
            team=team_id,
            name=text_of(form, "name"),
            scopes=[str(scope) for scope in form.getlist("scopes")],
            expires_at=datetime.now(UTC) + timedelta(days=min(max(days, 0), 10**5)) if days is not None else None,
        )
        made = api_teams.create_key(body, session, caller, audit)
    except InvalidRequest as error:
        return _team(request, session, team_id, why=error.message, status=422)
    except ValidationError:
        return _team(
            request, session, team_id, why="A key needs a name of 1 to 200 characters, and a scope.", status=422
        )
    return _team(request, session, team_id, made=made)


@router.post("/teams/{team_id}/quotas")
def set_quota(request: Request, team_id: Id, session: DbSession, caller: Admin, audit: Audit, form: Form) -> Response:
    """An empty field is no limit."""
    try:
        limits = {name: parse_size(text) if (text := text_of(form, name)) else None for name in QuotaPut.model_fields}
        api_teams.put_quota(team_id, QuotaPut(**limits), session, caller, audit)
    except InvalidRequest as error:
        return _team(request, session, team_id, why=error.message, status=422)
    except ValidationError:
        return _team(request, session, team_id, why="The least quota is 1; an empty field is no limit.", status=422)
    return go_to(f"/teams/{team_id}?note=quota")


@router.post("/keys/{key_id}/rotate")
def rotate_key(request: Request, key_id: Id, session: DbSession, caller: Admin, audit: Audit, form: Form) -> Response:
    overlap_days = number_of(form, "overlap_days", "whole")
    try:
        body = KeyRotate(overlap_days=7 if overlap_days is None else overlap_days)
    except ValidationError:
        raise InvalidRequest("The old key may go on working for 0 to 90 days.") from None
    made = api_teams.rotate_key(session=session, key_id=key_id, body=body, caller=caller, audit=audit)
    return _team(request, session, made.team_id, made=made)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: Id, session: DbSession, caller: Admin, audit: Audit, form: Form) -> Response:
    api_teams.revoke_key(key_id, session, caller, audit)
    return go_to(f"/teams/{text_of(form, 'team')}?note=revoked")


def _team(
    request: Request,
    session: Session,
    team_id: str,
    *,
    made: NewKeyView | None = None,
    why: str = "",
    note: str = "",
    status: int = 200,
) -> Response:
    team, now = teams.get_team(session, team_id), database_now(session)
    keys = sorted(teams.list_keys(session, team.id), key=lambda key: (_has_ended(key, now), key.created_at))
    ended = {key.id for key in keys if _has_ended(key, now)}
    context: dict[str, Any] = {"team": team, "keys": keys, "ended": ended, "now": now, "all_scopes": SCOPES}
    context["quota"] = view_quota(session, team)
    return render(request, "team.html", status, made=made, why=why, note=note, **context)


def _has_ended(key: Any, now: datetime) -> bool:
    return key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now)
