"""Which requests are for pages, by their path as it is routed."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
_PAGES = frozenset({"", "jobs", "new", "workers", "teams", "keys", "pictures", "live", "static", "sign-in", "sign-out"})
_API = frozenset({"v1", "openai", "healthz", "readyz", "metrics", "openapi.json"})


def is_page(scope: Scope) -> bool:
    """True for the dashboard's paths, and for whatever else a browser goes to that is not the API's."""
    first = scope["path"].removeprefix("/").partition("/")[0]
    if first in _PAGES:
        return True
    is_browser = "text/html" in Headers(scope=scope).get("accept", "")
    return is_browser and scope["method"] == "GET" and first not in _API


def is_open_page(path: str) -> bool:
    """What is answered before somebody has signed in."""
    return path == SIGN_IN or path.startswith("/static/")


def local_path(text: str) -> str:
    """Where to go after signing in: a path of ours, or the first page for whatever else was written there."""
    is_ours = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_ours else "/"
