"""What the API counts, and its line in the log for each request."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.telemetry import get_logger

METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds by machines

REQUESTS = Counter(
    "janus_http_requests_total", "Requests that were answered, by route template.", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "janus_http_request_seconds",
    "From a request's head to the end of its answer.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
IN_FLIGHT = Gauge("janus_http_requests_in_flight", "Requests that are being answered.")


class Watched:
    """The application, with every request counted, timed and logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        IN_FLIGHT.inc()
        try:
            await self._app(scope, receive, noting)
        finally:
            IN_FLIGHT.dec()
            _note(scope, status, time.perf_counter() - began)


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "none")  # the template, so that ids do not make series
    method = scope["method"] if scope["method"] in METHODS else "other"
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(method, route).observe(seconds)
    if route not in QUIET:
        state = scope.get("state", {})
        who = {name: state[name] for name in ("request_id", "team", "key") if name in state}
        get_logger().info("request", method=method, route=route, status=status, seconds=round(seconds, 4), **who)
