"""Who looks at a page. Asked for every page by the gate, so that no page can forget it."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from orchestrator.dashboard.paths import SIGN_IN, is_open_page
from orchestrator.dashboard.rendering import render_problem, secured
from orchestrator.dashboard.sessions import forget_session, read_session
from orchestrator.db import teams
from orchestrator.db.session import SessionFactory
from orchestrator.db.teams import Caller
from orchestrator.settings import Settings

_SAFE = frozenset({"GET", "HEAD"})
_COME_AGAIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0">
<title>Janus Batch</title><p><a href="">Go on to Janus Batch</a></p></html>"""


def admit(request: Request, settings: Settings, sessions: SessionFactory) -> Caller | Response | None:
    """The visitor of a page, what to answer instead, or None where anybody may see it."""
    if request.method not in _SAFE and _is_foreign(request):
        return render_problem(request, 403, "forbidden", "This form was sent from another site, so nothing was done.")
    path = request.scope["path"]
    session = request.state.session = read_session(request, settings)
    if is_open_page(path):
        return None
    caller = _find_caller(sessions, session.key_id) if session and session.key_id else None
    return caller or _to_sign_in(request, path, had_cookie=session is not None)


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that another site sent the form; the token in the form is asked for besides."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def _find_caller(sessions: SessionFactory, key_id: str) -> Caller | None:
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        return teams.find_live_key(session, key_id)


def _to_sign_in(request: Request, path: str, *, had_cookie: bool) -> Response:
    # A link on another site brings no cookie, as that is for our own site only; asked again from here, it does.
    if not had_cookie and request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        return secured(request, HTMLResponse(_COME_AGAIN))
    asked = path + (f"?{request.url.query}" if request.url.query else "")
    after = f"?next={quote(asked, safe='/')}" if request.method == "GET" and asked != "/" else ""
    response = RedirectResponse(SIGN_IN + after, 303)
    if had_cookie:
        forget_session(response)
    return response
