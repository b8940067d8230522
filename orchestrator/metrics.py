"""Metrics: what processes have in common, and the port on which Prometheus reads them.

Each process defines its own beside its code: `api/metrics.py`, `dispatch/metrics.py`, `workers/metrics.py`. Names begin
with `janus_` and hold their unit. No label holds a job, a team or a key: each label has few values.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from sqlalchemy import Engine, QueuePool

from orchestrator.settings import Settings, SettingsError
from orchestrator.telemetry import get_logger

Labels = TypeVar("Labels", bound=tuple[str, ...])
PORTS_TRIED = 32  # as many processes of one machine find a port above JANUS_METRICS_PORT

disable_created_metrics()  # type: ignore[no-untyped-call]

ITEMS = Counter(
    "janus_items_total",
    "Items that ended: `outcome` is result or failure, `error_code` the failure's.",
    ["kind", "outcome", "error_code"],
)
STORE_SECONDS = Histogram(
    "janus_store_request_seconds",
    "From a request to the object store to the head of its answer; `status` is 2xx, 3xx, 4xx, 5xx or error.",
    ["method", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
CONNECTIONS = Gauge("janus_database_connections", "Connections to Postgres that the process uses at this moment.")
CONNECTION_LIMIT = Gauge(
    "janus_database_connection_limit", "Connections to Postgres that it may use at once; more have to wait."
)


def serve_metrics(settings: Settings) -> int | None:
    """Answer Prometheus at the first free port from JANUS_METRICS_PORT on; the port, None where that is 0.

    Raises:
        SettingsError: JANUS_METRICS_HOST is no address of this machine, or every port that was tried is taken.
    """
    if settings.metrics_port == 0:
        return None
    last = settings.metrics_port + PORTS_TRIED - 1
    for port in range(settings.metrics_port, last + 1):
        try:
            start_http_server(port, settings.metrics_host)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == last:
                where = f"JANUS_METRICS_HOST={settings.metrics_host}, JANUS_METRICS_PORT={settings.metrics_port}"
                raise SettingsError(f"metrics cannot be served at {where} to {last}: {error}") from None
        else:
            get_logger().info("metrics_served", host=settings.metrics_host, port=port)
            return port
    raise AssertionError("unreachable")


def watch_connections(engine: Engine) -> None:
    """Show this process's pool of connections."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    CONNECTIONS.set_function(lambda: pool.checkedout())
    CONNECTION_LIMIT.set(pool.size() + pool._max_overflow)


def count_items(kind: str, results: int, error_codes: list[str]) -> None:
    """Items that ended for good: call it once what they became is committed."""
    ITEMS.labels(kind, "result", "").inc(results)
    for code in error_codes:
        ITEMS.labels(kind, "failure", code).inc()


def set_all(gauge: Gauge, values: Mapping[Labels, float]) -> None:
    """Set these series of a gauge and remove all others."""
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    (family,) = gauge.collect()
    for gone in {tuple(sample.labels.values()) for sample in family.samples} - set(values):
        gauge.remove(*gone)
