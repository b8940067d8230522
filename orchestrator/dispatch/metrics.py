"""What the dispatcher counts, and what it sees in Postgres and Redis. With several dispatchers all see the same: take
the maximum of a gauge, never the sum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("janus_shards_published_total", "Shards whose message went to the queue for the first time.")
QUOTA_WAITS = Gauge(
    "janus_quota_waits", "Teams whose next shard may run and waits, as their quota of items is used.", ["model"]
)
REPUBLISHED = Counter("janus_shards_republished_total", "Messages that were lost and published again.")
EXPIRED = Counter(
    "janus_leases_expired_total",
    "Leases of silent workers that ran out; `verdict` is retry, halve, give_up or cancel.",
    ["verdict"],
)
JOBS_ENDED = Counter("janus_jobs_ended_total", "Jobs that ended, by their last state.", ["state"])
FAILURES = Counter("janus_dispatcher_failures_total", "Rounds, or single things in one, that raised.", ["duty"])
ROUND_SECONDS = Histogram(
    "janus_dispatcher_round_seconds",
    "One round of a duty.",
    ["duty"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10, 60, 600),
)
LAST_ROUND = Gauge(
    "janus_dispatcher_last_round_timestamp_seconds", "When a duty last ended a round without an error.", ["duty"]
)

JOBS = Gauge("janus_jobs", "Open jobs: accepted, running, paused or finishing.", ["state"])
SHARDS = Gauge("janus_shards", "Open shards: waiting, dispatched or leased.", ["model", "state"])
READY_AGE = Gauge(
    "janus_shard_ready_age_seconds", "For how long the oldest published shard has waited for a worker.", ["model"]
)
QUEUE_DEPTH = Gauge("janus_queue_depth", "Messages in Redis that no worker has taken.", ["model"])
WORKERS = Gauge("janus_workers", "Workers by model: alive, or silent (not stopped, no heartbeat).", ["model", "state"])
HEARTBEAT_AGE = Gauge(
    "janus_worker_heartbeat_age_seconds", "Age of the oldest heartbeat among the workers alive.", ["model"]
)
UNSERVED_JOBS = Gauge("janus_unserved_jobs", "Open jobs whose model no live worker serves.", ["model"])
DEAD_ROWS = Gauge("janus_database_dead_rows", "Dead rows of a table that vacuum has yet to take.", ["table"])


@contextmanager
def one_round(duty: str) -> Iterator[None]:
    """Time a round, and note when one ended well."""
    with ROUND_SECONDS.labels(duty).time():
        yield
    LAST_ROUND.labels(duty).set(time.time())
