"""Templates to answers: whatever a team, a model or a file says is escaped, and no page has a script or style in it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from orchestrator.dashboard import formats
from orchestrator.domain.jobs import JobState

STATIC = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}
_TITLES = {403: "Not allowed", 404: "Not here", 409: "Not possible now", 429: "Too many requests"}
_HEADERS = {
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@lru_cache(maxsize=1)
def environment() -> Environment:
    loader = PackageLoader("orchestrator.dashboard")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {name: getattr(formats, name) for name in formats.__all__}
    made.globals |= {"static": static_url, "JobState": JobState, "sizes": formats}
    return made


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A page, for whoever the gate has let in."""
    caller = getattr(request.state, "caller", None)
    session = getattr(request.state, "session", None)
    context |= {
        "request": request,
        "path": request.scope["path"],
        "caller": caller,
        "scopes": caller.scopes if caller else frozenset(),
        "form_token": session.form_token if session else "",
    }
    return secured(request, HTMLResponse(environment().get_template(template).render(context), status))


def render_piece(template: str, **context: Any) -> str:
    """A piece of a page, as it is sent again when it changes."""
    return environment().get_template(template).render(context)


def render_problem(
    request: Request, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> Response:
    """An error as a page: what, where and what to do next."""
    title = _TITLES.get(status, HTTPStatus(status).phrase)
    request_id = getattr(request.state, "request_id", "unknown")
    response = render(request, "problem.html", status, title=title, code=code, detail=detail, request_id=request_id)
    response.headers.update(headers or {})
    return response


def secured(request: Request, response: Response) -> Response:
    """The answer with what a browser may do with it: nothing but ours, and pictures and uploads of the store."""
    store = _origin(request.app.state.services.settings.s3_public_endpoint)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' {store}; connect-src 'self' {store}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers.update(_HEADERS)
    return response


@lru_cache(maxsize=8)
def static_file(name: str) -> bytes:
    return files("orchestrator.dashboard").joinpath("static", name).read_bytes()


@lru_cache(maxsize=8)
def static_url(name: str) -> str:
    """With a digest in it, so that a browser may keep it for ever."""
    return f"/static/{name}?v={hashlib.sha256(static_file(name)).hexdigest()[:12]}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
