"""What schemathesis cannot know: half of the jobs it makes up are for a model and an upload that exist.

Read by schemathesis itself (SCHEMATHESIS_HOOKS), never by the tests.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A known model in every job that names one that could be; a known upload in every second."""
    if context.operation.label == "POST /v1/jobs" and isinstance(body, dict):
        body = dict(body)
        if isinstance(body.get("model"), str) and len(body["model"]) % 2:
            body["model"] = "m"
        given = body.get("input")
        if isinstance(given, dict) and isinstance(given.get("upload"), str) and len(given["upload"]) % 2:
            body["input"] = {**given, "upload": os.environ["FUZZ_UPLOAD"]}
    return body
