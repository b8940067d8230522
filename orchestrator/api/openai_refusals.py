"""Refusals under /openai/v1, in the shape from which that contract's clients make their exceptions."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

PREFIX = "/openai/"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def is_openai(path: str) -> bool:
    return path.startswith(PREFIX)


def status_there(status: int) -> int:
    """What is 422 elsewhere is 400 there."""
    return 400 if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def refusal(status: int, code: str, detail: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body; `param` is the first place that a validation found wrong."""
    found = fields.get("errors") or [{"where": None}]
    kind = _TYPES.get(status_there(status), "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": detail, "type": kind, "param": found[0]["where"], "code": code}}
