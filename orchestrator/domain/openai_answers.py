"""What a line of an OpenAI batch is answered with: a line of its output file, or of its error file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from orchestrator.domain.openai_lines import LineRefused

# Failures that are ours rather than the request's.
_SERVER_FAULTS = {"engine_error", "worker_crashed", "image_refused"}


def encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def refused_line(batch_id: str, number: int, refused: LineRefused) -> dict[str, Any]:
    """A line that never became an item; `number` is its place in the file, from 1."""
    error = _error(f"line {number}: {refused.message}", "invalid_request_error", refused.param, refused.code)
    return _envelope(batch_id, number, refused.custom_id, 400, {"error": error})


def unfinished_line(batch_id: str, number: int, custom_id: str, *, expired: bool) -> dict[str, Any]:
    """An item that had no turn before its batch was cancelled or its window was over."""
    what = "its completion window was over" if expired else "its batch was cancelled"
    error = {"code": "batch_expired" if expired else "batch_cancelled", "message": f"not executed before {what}"}
    return _envelope(batch_id, number, custom_id, None, None) | {"error": error}


def failed_line(batch_id: str, number: int, custom_id: str, failure: dict[str, Any]) -> dict[str, Any]:
    """An item that failed; `failure` as its result line has it."""
    ours = failure["code"] in _SERVER_FAULTS
    error = _error(failure["message"], "server_error" if ours else "invalid_request_error", None, failure["code"])
    return _envelope(batch_id, number, custom_id, 500 if ours else 400, {"error": error})


def caption_line(batch_id: str, number: int, custom_id: str, result: dict[str, Any], created: int) -> dict[str, Any]:
    """A chat completion. `usage` is null: nobody counted the prompt's tokens."""
    message = {"role": "assistant", "content": result["caption"], "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": result["finish_reason"], "logprobs": None}
    body = {
        "id": f"chatcmpl-{_request_id(batch_id, number)}",
        "object": "chat.completion",
        "created": created,
        "model": result["model"],
        "system_fingerprint": result["revision"],
        "choices": [choice],
        "usage": None,
        "seed": result["seed"],
    }
    return _envelope(batch_id, number, custom_id, 200, body)


def images_line(
    batch_id: str,
    number: int,
    custom_id: str,
    result: dict[str, Any],
    created: int,
    content: Callable[[dict[str, Any]], dict[str, str]],
) -> dict[str, Any]:
    """Drawn images; `content` gives an image's `b64_json` or `url`."""
    first = result["images"][0]
    body = {
        "created": created,
        "model": result["model"],
        "system_fingerprint": result["revision"],
        "output_format": "png",
        "size": f"{first['width']}x{first['height']}",
        "data": [content(image) | {"seed": image["seed"]} for image in result["images"]],
    }
    return _envelope(batch_id, number, custom_id, 200, body)


def _envelope(
    batch_id: str, number: int, custom_id: str | None, status_code: int | None, body: dict[str, Any] | None
) -> dict[str, Any]:
    request_id = _request_id(batch_id, number)
    response = {"status_code": status_code, "request_id": request_id, "body": body} if body is not None else None
    return {"id": request_id, "custom_id": custom_id, "response": response, "error": None}


def _request_id(batch_id: str, number: int) -> str:
    return f"{batch_id.replace('batch_', 'batch_req_')}_{number}"


def _error(message: str, type: str, param: str | None, code: str) -> dict[str, Any]:
    return {"message": message, "type": type, "param": param, "code": code}
