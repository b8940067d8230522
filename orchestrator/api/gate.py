"""What every request passes before its route: an id, a size, a key, a rate. A route cannot forget any of them.

The key is looked at before the body is read, so that nobody without one makes the server parse anything.
"""

from __future__ import annotations

import re
import secrets

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import RequestResponseEndpoint

from orchestrator.api import errors
from orchestrator.api.dependencies import Services, address_of
from orchestrator.dashboard.paths import is_page
from orchestrator.dashboard.visitors import admit
from orchestrator.db import teams
from orchestrator.db.teams import Caller
from orchestrator.domain.keys import parse_key
from orchestrator.settings import Settings
from orchestrator.telemetry import bind, get_logger

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What answers without a key; it shows nothing of any team."""

SENDS_FILE = ("POST", "/openai/v1/files")
FORM_BYTES = 64 * 2**10  # around a file, and beside it

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",  # an answer is what its type says, and nothing that a browser finds in it
    "Cache-Control": "no-store",  # keys and signed links are not kept by anything in between
}


async def pass_gate(request: Request, call_next: RequestResponseEndpoint, services: Services) -> Response:
    """Answer the request, or say why not; every answer carries the request's id."""
    given = request.headers.get("x-request-id", "")
    request.state.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
    bind(request_id=request.state.request_id)
    try:
        refused = _refuse_size(request, _max_bytes(request, services.settings))
        # The path as it is routed: that of `request.url` is read behind whatever the caller wrote into Host.
        if refused is None and request.scope["path"] not in OPEN_PATHS:
            refuse = _refuse_visitor if is_page(request.scope) else _refuse_caller
            refused = await run_in_threadpool(refuse, request, services)
        response = refused or await call_next(request)
    except Exception as error:
        response = errors.translated(request, error)
    response.headers["X-Request-Id"] = request.state.request_id
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _max_bytes(request: Request, settings: Settings) -> int:
    """Files of OpenAI clients pass through here, and are as large as they may be."""
    sends_file = (request.method, request.scope["path"]) == SENDS_FILE
    return settings.max_file_bytes + FORM_BYTES if sends_file else settings.max_request_bytes


def _refuse_size(request: Request, max_bytes: int) -> Response | None:
    """Bodies must say how long they are, and be short: inputs go to the store."""
    length = request.headers.get("content-length", "")
    if "transfer-encoding" in request.headers:  # it would win over any Content-Length beside it
        return errors.problem(request, 411, "length_required", "send Content-Length; upload large inputs to the store")
    if length.isdigit() and int(length) > max_bytes:
        detail = f"the body has {length} bytes; at most {max_bytes} are accepted. Upload a manifest instead."
        return errors.problem(request, 413, "request_too_large", detail)
    return None


def _refuse_caller(request: Request, services: Services) -> Response | None:
    """Find out who asks, and note it in the request; a problem where that is nobody, or somebody who asks too often."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        detail = "send a key: `Authorization: Bearer jns_live_…`; an admin makes one with `janus keys create`"
        return _unauthorized(request, detail)
    caller = _find_caller(services, key.strip())
    if caller is None:
        return _unauthorized(request, "this key is not valid: mistyped, revoked or expired")
    return _note_caller(request, caller, services)


def _refuse_visitor(request: Request, services: Services) -> Response | None:
    """The same for a page, whose visitor has a cookie in place of a key."""
    visitor = admit(request, services.settings, services.sessions)
    return _note_caller(request, visitor, services) if isinstance(visitor, Caller) else visitor


def _note_caller(request: Request, caller: Caller, services: Services) -> Response | None:
    request.state.caller, request.state.team, request.state.key = caller, caller.team_id, caller.key_id
    return _refuse_rate(request, caller, services)


def _find_caller(services: Services, key: str) -> Caller | None:
    if parse_key(key) is None:  # its checksum says so, and Postgres is not asked
        return None
    with services.sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})  # one statement, two round trips less
        return teams.find_caller(session, key)


def _unauthorized(request: Request, detail: str) -> Response:
    get_logger().warning("unauthorized", request_id=errors.request_id_of(request), address=address_of(request))
    return errors.problem(request, 401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def _refuse_rate(request: Request, caller: Caller, services: Services) -> Response | None:
    wait_seconds = services.rates.take(caller.team_id)
    if not wait_seconds:
        return None
    detail = (
        f"the team sends more than {services.settings.max_requests_per_minute} requests a minute "
        "(JANUS_MAX_REQUESTS_PER_MINUTE). Ask again after the seconds of Retry-After."
    )
    return errors.problem(request, 429, "too_many_requests", detail, {"Retry-After": str(int(wait_seconds) + 1)})
