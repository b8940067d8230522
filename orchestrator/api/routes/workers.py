"""Models and the workers that serve them."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from orchestrator.api.dependencies import DbSession, Reader
from orchestrator.db import workers
from orchestrator.schemas import ModelsView, ModelView, WorkersView, WorkerView

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
def list_models(session: DbSession, caller: Reader) -> ModelsView:
    """Every model that a worker has served; `served` says whether one does now."""
    served = workers.models_served(session)
    return ModelsView(
        models=[
            ModelView(
                name=m.name,
                family=m.family,
                revision=m.revision,
                served=m.name in served,
                registered_at=m.registered_at,
            )
            for m in workers.list_models(session)
        ]
    )


@router.get("/workers")
def list_workers(session: DbSession, caller: Reader) -> WorkersView:
    """Workers seen in the last day."""
    return WorkersView(workers=[WorkerView(**asdict(worker)) for worker in workers.list_workers(session)])
