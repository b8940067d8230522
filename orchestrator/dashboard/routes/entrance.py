"""Signing in with a key, signing out, and the files that every page needs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from orchestrator.api.dependencies import AppServices, address_of
from orchestrator.dashboard.forms import Form, go_to, text_of
from orchestrator.dashboard.paths import SIGN_IN, SIGN_OUT, local_path
from orchestrator.dashboard.rendering import STATIC, render, render_problem, secured, static_file
from orchestrator.dashboard.sessions import forget_session, new_session, write_session
from orchestrator.db import teams
from orchestrator.domain.errors import NotFound
from orchestrator.domain.keys import parse_key
from orchestrator.telemetry import get_logger

router = APIRouter()


@router.get(SIGN_IN)
def show_sign_in(request: Request, services: AppServices, next: str = "/") -> Response:
    return _form(request, services, local_path(next), "", 200)


@router.post(SIGN_IN)
def sign_in(request: Request, services: AppServices, form: Form) -> Response:
    """Tries are counted by address, so that nobody makes the database look up keys all day."""
    wait_seconds = services.sign_ins.take(address_of(request))
    if wait_seconds:
        detail = "Too many tries to sign in from this address. Wait a minute, then try again."
        return render_problem(request, 429, "too_many_requests", detail, {"Retry-After": str(int(wait_seconds) + 1)})
    target, key = local_path(text_of(form, "next")), text_of(form, "key")
    if parse_key(key) is None:
        return _refused(
            request,
            services,
            target,
            "This is not a key: one begins with jns_live_ and has 71 characters. Copy it whole.",
        )
    with services.sessions.begin() as session:
        caller = teams.find_caller(session, key)
    if caller is None:
        return _refused(
            request,
            services,
            target,
            "This key is not valid any more, or never was: it is unknown, revoked or expired.",
        )
    get_logger().info("signed_in", team=caller.team_id, key=caller.key_id, address=address_of(request))
    response = go_to(target)
    write_session(request, response, new_session(caller.key_id), services.settings)
    return response


def _refused(request: Request, services: AppServices, target: str, why: str) -> Response:
    get_logger().warning("sign_in_refused", address=address_of(request))
    return _form(request, services, target, why, 401)


def _form(request: Request, services: AppServices, target: str, why: str, status: int) -> Response:
    session = new_session()
    request.state.session = session
    response = render(request, "sign_in.html", status, target=target, why=why)
    write_session(request, response, session, services.settings)
    return response


@router.post(SIGN_OUT)
def sign_out(form: Form) -> Response:
    response = go_to(SIGN_IN)
    forget_session(response)
    return response


@router.get("/static/{name}")
async def show_static(request: Request, name: str) -> Response:
    if name not in STATIC:
        raise NotFound("There is no such file.")
    data = await run_in_threadpool(static_file, name)
    headers = {"Cache-Control": "public, max-age=31536000, immutable" if request.url.query else "no-cache"}
    return secured(request, Response(data, media_type=STATIC[name], headers=headers))
