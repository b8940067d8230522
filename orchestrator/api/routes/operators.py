"""For whoever runs the system: metrics of this process, and what is wrong with all of them."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from orchestrator.api.dependencies import Admin, AppServices
from orchestrator.diagnosis import diagnose
from orchestrator.schemas import DiagnosisView, FindingView

router = APIRouter(tags=["operators"])


@router.get("/metrics", response_class=Response)
def metrics(caller: Admin) -> Response:
    """What this API process counted, as Prometheus reads it. Without a key: JANUS_METRICS_PORT."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/diagnosis")
def diagnosis(caller: Admin, services: AppServices) -> DiagnosisView:
    """Every fault that the servers can see, each with what to do about it."""
    findings = diagnose(services.settings, services.sessions, services.store)
    return DiagnosisView(findings=[FindingView(**asdict(finding)) for finding in findings])
