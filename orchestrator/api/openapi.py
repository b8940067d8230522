"""The API's description of itself, with every refusal that a route may answer as a problem document."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api.gate import OPEN_PATHS
from orchestrator.api.openai_refusals import is_openai, status_there
from orchestrator.api.openai_shapes import OpenaiError, OpenaiRefusal
from orchestrator.schemas import Problem

_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_OPENAI_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenaiRefusal"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once. A route declares those of its own (`responses={404: {}}`); the rest is alike for all."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        schemas["OpenaiError"] = OpenaiError.model_json_schema()
        schemas["OpenaiRefusal"] = OpenaiRefusal.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas["OpenaiRefusal"].pop("$defs")
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _describe_refusals(path, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_refusals(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if path not in OPEN_PATHS:
        operation["security"] = [{"key": []}]
    if is_openai(path):
        responses.pop("422", None)
    declared = {int(status) for status, response in responses.items() if int(status) >= 400 and _is_bare(response)}
    for status in sorted(declared | set(_possible(path, operation))):
        headers = {"headers": _RETRY_AFTER} if status in (429, 503) else {}
        content = _OPENAI_CONTENT if is_openai(path) else _CONTENT
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content} | headers


def _is_bare(response: dict[str, Any]) -> bool:
    """Declared without a shape of its own, or with the framework's shape of a refusal."""
    return "content" not in response or "HTTPValidationError" in str(response)


def _possible(path: str, operation: dict[str, Any]) -> Iterator[int]:
    """Statuses that the gate, the reading of parameters and a missing server give."""
    yield from (411, 413, 500)
    if path not in OPEN_PATHS:
        yield from (401, 403, 429, 503)
    if "requestBody" in operation:
        yield 400
    if "requestBody" in operation or operation.get("parameters"):
        yield status_there(422) if is_openai(path) else 422
