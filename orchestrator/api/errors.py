"""Every error as an RFC 9457 problem document that carries the request's id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.exceptions import HTTPException
from starlette.routing import Match

from orchestrator.api.openai_refusals import is_openai, refusal, status_there
from orchestrator.artifacts.base import ObjectMissing, StoreError
from orchestrator.dashboard.paths import is_page
from orchestrator.dashboard.rendering import render_problem
from orchestrator.domain.errors import Conflict, DomainError, Forbidden, InvalidRequest, NotFound
from orchestrator.schemas import finding_message
from orchestrator.telemetry import get_logger

STATUS_OF: dict[type[DomainError], int] = {InvalidRequest: 422, NotFound: 404, Conflict: 409, Forbidden: 403}
UNAVAILABLE = (StoreError, OperationalError, InterfaceError, NoFreeConnection)
MAX_FINDINGS = 20  # of one request; each quotes what was sent
MAX_QUOTE = 300  # characters


class RefusalResponse(JSONResponse):
    """Half characters, which a request may quote and UTF-8 has no bytes for, become question marks."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


class ProblemResponse(RefusalResponse):
    media_type = "application/problem+json"


def problem(
    request: Request, status: int, code: str, detail: str, headers: dict[str, str] | None = None, **fields: Any
) -> Response:
    """A problem document; `code` is for programs, `detail` says what, where and what to do next.

    Clients of the OpenAI contract get it in that contract's shape, and browsers a page.
    """
    if is_openai(request.scope["path"]):
        return RefusalResponse(refusal(status, code, detail, fields), status_there(status), headers)
    if is_page(request.scope):
        return render_problem(request, status, code, detail, headers)
    body = {
        "type": f"urn:janus:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id_of(request),
        **fields,
    }
    return ProblemResponse(body, status, headers)


def request_id_of(request: Request) -> str:
    return str(getattr(request.state, "request_id", "unknown"))


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Translate what routes raise."""

    @app.exception_handler(DomainError)
    def domain_error(request: Request, error: DomainError) -> Response:
        status = next((status for kind, status in STATUS_OF.items() if isinstance(error, kind)), 400)
        if status == HTTPStatus.FORBIDDEN:
            get_logger().warning("forbidden", request_id=request_id_of(request), detail=error.message)
        return problem(request, status, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        findings = error.errors()[:MAX_FINDINGS]
        found = [{"where": _place(e["loc"])[:MAX_QUOTE], "message": finding_message(e)[:MAX_QUOTE]} for e in findings]
        detail = "; ".join(f"{e['where']}: {e['message']}" for e in found[:5])
        return problem(request, 422, "invalid_request", detail, errors=found)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        detail = (
            f"{request.method} {request.scope['path'][:MAX_QUOTE]}: {error.detail}; see /openapi.json for what there is"
        )
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework names those of one route only
            headers["Allow"] = ", ".join(sorted(_methods(request, routers)))
        return problem(request, error.status_code, code, detail, headers)

    @app.exception_handler(ObjectMissing)
    def missing(request: Request, error: ObjectMissing) -> Response:
        return problem(request, 404, "object_missing", str(error))

    @app.exception_handler(DataError)
    def not_storable(request: Request, error: DataError) -> Response:
        detail = f"a value cannot be stored: {str(error.orig).splitlines()[0]}"
        return problem(request, 422, "invalid_request", detail)

    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, translated)


def translated(request: Request, error: Exception) -> Response:
    """A server that did not answer: 503. What nobody foresaw: 500, logged in full, told in short."""
    if isinstance(error, UNAVAILABLE):
        get_logger().warning("unavailable", request_id=request_id_of(request), error=str(error)[:500])
        detail = "the database or the object store did not answer. Try again in a few seconds."
        return problem(request, 503, "unavailable", detail, {"Retry-After": "5"})
    get_logger().error("internal_error", request_id=request_id_of(request), path=request.scope["path"], exc_info=error)
    return problem(request, 500, "internal_error", "the server failed; its log has the details under this request id")


def _methods(request: Request, routers: Sequence[APIRouter]) -> set[str]:
    """What may be done with the path that was asked for."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in found for method in route.methods or ()}


def _place(location: Sequence[Any]) -> str:
    return ".".join(str(part) for part in location if part not in ("body", "caption", "generate")) or "body"
