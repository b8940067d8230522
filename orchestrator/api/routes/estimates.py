"""Estimates: what a job would take, before it is submitted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from orchestrator.api.dependencies import AppServices, DbSession, Reader
from orchestrator.api.estimate_views import view_estimate
from orchestrator.api.routes.jobs import require_coming, require_known_model, shard_items_of
from orchestrator.schemas import EstimateCreate, EstimateView

router = APIRouter(prefix="/v1/estimates", tags=["jobs"])


@router.post("")
def create_estimate(
    body: Annotated[EstimateCreate, Body()], session: DbSession, caller: Reader, services: AppServices
) -> EstimateView:
    """When so many items would be done if they were submitted now. Nothing is made."""
    require_known_model(session, body.model)
    require_coming(session, body.deadline_at)
    return view_estimate(session, caller.team_id, body, shard_items_of(body, services.settings))
