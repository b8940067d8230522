"""What serves: workers and their models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from orchestrator.api.dependencies import DbSession, Reader
from orchestrator.dashboard.rendering import render
from orchestrator.db import workers
from orchestrator.db.session import database_now

router = APIRouter()


@router.get("/workers")
def show_workers(request: Request, session: DbSession, caller: Reader) -> Response:
    found = workers.list_workers(session)
    by_model = {
        model.name: sum(worker.alive and model.name in worker.models for worker in found)
        for model in workers.list_models(session)
    }
    return render(
        request,
        "workers.html",
        workers=found,
        models=sorted(workers.list_models(session), key=lambda model: (not by_model[model.name], model.name)),
        by_model=by_model,
        now=database_now(session),
    )
