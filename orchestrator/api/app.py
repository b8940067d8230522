"""The HTTP edge: a FastAPI application made from services."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from orchestrator.api import errors
from orchestrator.api.dependencies import Services
from orchestrator.api.routes import health, jobs, teams, uploads, workers

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(services: Services) -> FastAPI:
    """The application; it opens nothing by itself."""
    app = FastAPI(title="Janus Batch", version="0.1.0", redoc_url=None)
    app.state.services = services
    errors.install(app)
    for router in (health.router, uploads.router, jobs.router, workers.router, teams.router):
        app.include_router(router)

    @app.middleware("http")
    async def around(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        response = _refuse_large(request, services.settings.max_request_bytes)
        if response is None:
            try:
                response = await call_next(request)
            except Exception as error:
                response = errors.internal(request, error)
        response.headers["x-request-id"] = request.state.request_id
        return response

    return app


def _refuse_large(request: Request, max_bytes: int) -> Response | None:
    """Bodies must say how long they are, and be short: inputs go to the store."""
    length = request.headers.get("content-length", "")
    if request.method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return None
    if "transfer-encoding" in request.headers:  # it would win over any Content-Length beside it
        return errors.problem(request, 411, "length_required", "send Content-Length; upload large inputs to the store")
    if length.isdigit() and int(length) > max_bytes:
        detail = f"the body has {length} bytes; at most {max_bytes} are accepted. Upload a manifest instead."
        return errors.problem(request, 413, "request_too_large", detail)
    return None
