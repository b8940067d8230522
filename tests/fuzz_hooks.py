"""What schemathesis cannot make up: ids of what is there. Read by schemathesis itself (SCHEMATHESIS_HOOKS)."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Of the well-formed requests every second is about what exists: without it most would be for nothing.

    None is about the key that asks, which would be revoked or rotated away.
    """
    if (case.path_parameters or {}).get("key_id") == os.environ["FUZZ_OWN_KEY_ID"]:
        case.path_parameters["key_id"] = os.environ["FUZZ_KEY_ID"]
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        _keep_wrong(case)
        return
    if len(repr((case.path_parameters, case.query, case.body))) % 2:
        return
    for name in case.path_parameters or {}:
        case.path_parameters[name] = os.environ[f"FUZZ_{name.upper()}"]
    if case.operation.label == "POST /v1/jobs" and isinstance(case.body, dict):
        case.body = case.body | {"model": "m", "options": {}, "shard_items": None}
        if case.body["input"].get("upload") is not None:
            case.body["input"] = case.body["input"] | {"upload": os.environ["FUZZ_UPLOAD_ID"]}


def _keep_wrong(case: Any) -> None:
    """A form's fields are text on the wire: a number in a file's place is a file, and the request right after all."""
    if case.operation.label != "POST /openai/v1/files" or not isinstance(case.body, dict):
        return
    if case.body.get("purpose") == "batch" and "file" in case.body:
        case.body = {name: value for name, value in case.body.items() if name != "purpose"}
