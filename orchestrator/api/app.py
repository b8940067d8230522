"""The HTTP edge: a FastAPI application made from services."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from orchestrator.api import errors
from orchestrator.api.dependencies import Services
from orchestrator.api.gate import pass_gate
from orchestrator.api.metrics import Watched
from orchestrator.api.openapi import describe
from orchestrator.api.routes import (
    audit,
    edits,
    estimates,
    health,
    jobs,
    openai_batches,
    openai_files,
    operators,
    replays,
    reports,
    samples,
    teams,
    uploads,
    webhooks,
    workers,
)
from orchestrator.dashboard.app import PAGES

ROUTERS = (
    health.router,
    uploads.router,
    jobs.router,
    edits.router,
    samples.router,
    replays.router,
    estimates.router,
    webhooks.router,
    reports.router,
    openai_files.router,
    openai_batches.router,
    workers.router,
    teams.router,
    audit.router,
    operators.router,
)


def create_app(services: Services) -> FastAPI:
    """The application; it opens nothing by itself."""
    # No page of documentation: the usual ones run scripts of a foreign host beside people's keys. No redirects: they
    # would repeat the Host header that the caller chose.
    app = FastAPI(title="Janus Batch", version="0.1.0", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    errors.install(app, (*ROUTERS, *PAGES))
    for router in ROUTERS:
        app.include_router(router)
    for page in PAGES:
        app.include_router(page, include_in_schema=False)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]

    @app.middleware("http")
    async def around(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await pass_gate(request, call_next, services)

    app.add_middleware(Watched)
    return app
