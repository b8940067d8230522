"""What routes are handed: a session that commits once and sees one team, the caller, the store, the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import audit
from orchestrator.db.ownership import confine
from orchestrator.db.session import SessionFactory
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.places import InputPlaces
from orchestrator.domain.rates import RateLimit
from orchestrator.settings import Settings

SIGN_INS_PER_MINUTE = 10


@dataclass(frozen=True)
class Services:
    """What the process holds for all requests."""

    settings: Settings
    sessions: SessionFactory
    store: ObjectStore
    ping_broker: Callable[[], None]
    rates: RateLimit
    places: InputPlaces
    sign_ins: RateLimit = field(default_factory=lambda: RateLimit(SIGN_INS_PER_MINUTE))  # by address


def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def get_caller(request: Request) -> Caller:
    """Who asks; the gate has found out."""
    caller: Caller = request.state.caller
    return caller


def get_session(
    services: Annotated[Services, Depends(get_services)], caller: Annotated[Caller, Depends(get_caller)]
) -> Iterator[Session]:
    """One transaction a request: committed when the route returns, and before the answer leaves.

    It sees the caller's team and no other.
    """
    with team_session(services, caller) as session:
        yield session


@contextmanager
def team_session(services: Services, caller: Caller) -> Iterator[Session]:
    """A transaction that sees the caller's team, for as long as the block: none is held while the store is read."""
    with services.sessions.begin() as session:
        confine(session, caller.team_id)
        yield session


def _requires(scope: str) -> Callable[[Caller], Caller]:
    def check(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        if scope not in caller.scopes:
            held = ", ".join(sorted(caller.scopes))
            raise Forbidden(f"this needs the scope {scope}; the key {caller.key_id} has {held}")
        return caller

    return check


@dataclass(frozen=True)
class Auditor:
    """Notes who did what, in the transaction that does it."""

    session: Session
    caller: Caller
    request_id: str
    address: str

    def record(self, action: str, object_id: str, **data: Any) -> None:
        who = {"team_id": self.caller.team_id, "key_id": self.caller.key_id}
        where = {"request_id": self.request_id, "address": self.address}
        audit.record(self.session, action, object_id, **who, **where, **data)


def get_auditor(request: Request, session: DbSession, caller: AnyCaller) -> Auditor:
    return Auditor(session, caller, request.state.request_id, address_of(request))


def address_of(request: Request) -> str:
    """The caller's address: the peer's, or what a trusted proxy said it is (JANUS_TRUSTED_PROXIES)."""
    return request.client.host if request.client else "unknown"


Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
AppServices = Annotated[Services, Depends(get_services)]
DbSession = Annotated[Session, Depends(get_session, scope="function")]
Reader = Annotated[Caller, Depends(_requires("jobs:read"))]
Writer = Annotated[Caller, Depends(_requires("jobs:write"))]
Admin = Annotated[Caller, Depends(_requires("admin"))]
AnyCaller = Annotated[Caller, Depends(get_caller)]
Audit = Annotated[Auditor, Depends(get_auditor, scope="function")]
