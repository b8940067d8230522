"""What routes are handed: a session that commits once, the caller, the store, the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from orchestrator.api.errors import Unauthorized
from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import teams
from orchestrator.db.session import SessionFactory
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import Forbidden
from orchestrator.settings import Settings


@dataclass(frozen=True)
class Services:
    """What the process holds for all requests."""

    settings: Settings
    sessions: SessionFactory
    store: ObjectStore
    ping_broker: Callable[[], None]


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def get_session(services: Annotated[Services, Depends(get_services)]) -> Iterator[Session]:
    """One transaction a request: committed when the route returns, and before the answer leaves."""
    with services.sessions.begin() as session:
        yield session


def get_caller(session: DbSession, authorization: Annotated[str | None, Header()] = None) -> Caller:
    """Who asks. Raises Unauthorized."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized(
            "send a key: `Authorization: Bearer jns_live_…`; an admin makes one with `janus keys create`"
        )
    caller = teams.find_caller(session, key.strip())
    if caller is None:
        raise Unauthorized("this key is not valid: mistyped, revoked or expired")
    return caller


def _requires(scope: str) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        if scope not in caller.scopes:
            held = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"this needs the scope {scope}; the key {caller.key_id} has {held}")
        return caller

    return check


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
AppServices = Annotated[Services, Depends(get_services)]
DbSession = Annotated[Session, Depends(get_session, scope="function")]
Reader = Annotated[Caller, Depends(_requires("jobs:read"))]
Writer = Annotated[Caller, Depends(_requires("jobs:write"))]
Admin = Annotated[Caller, Depends(_requires("admin"))]
AnyCaller = Annotated[Caller, Depends(get_caller)]
