"""What a worker counts. The engine's own thread pays for three numbers each turn; the rest is read when asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.context_managers import Timer

from orchestrator.domain.shards import Part
from orchestrator.metrics import count_items

STAGES = ("fetch", "decode", "wait", "compute", "store", "flush")

STAGE_SECONDS = Histogram(
    "janus_stage_seconds",
    "An item's stages: fetch, decode, wait for the engine, compute, store its images; and one flush of a part.",
    ["stage"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300),
)
ATTEMPTS = Counter(
    "janus_attempts_total",
    "Attempts that ended: done, cancelled, released, lost (the lease), crashed or old (its message).",
    ["outcome"],
)
REUSED = Counter(
    "janus_items_reused_total",
    "Items that were not computed: their result stood in a part of the team's, or an equal item's of this worker.",
    ["kind", "source"],
)
RENEWALS = Counter("janus_lease_renewals_total", "Leases that were renewed.")
HEARTBEAT_FAILURES = Counter("janus_heartbeat_failures_total", "Rounds of the heartbeat that raised.")
SHARDS_HELD = Gauge("janus_worker_shards_held", "Shards that the worker holds.")

TURNS = Counter("janus_engine_turns_total", "Turns that the engine took: one or a few steps of everything.", ["model"])
TURN_SECONDS = Counter("janus_engine_turn_seconds_total", "Time in those turns; its rate is how busy it is.", ["model"])
ROW_TURNS = Counter("janus_engine_row_turns_total", "Rows that took part, summed over turns.", ["model"])
TOKENS = Counter("janus_engine_tokens_total", "Tokens of finished captions.", ["model"])
IMAGES = Counter("janus_engine_images_total", "Finished images.", ["model"])
ROWS = Gauge("janus_engine_rows", "Rows in the engine: running or waiting.", ["model", "state"])
ROW_LIMIT = Gauge("janus_engine_row_limit", "Rows that may run at once.", ["model"])
STUCK_SECONDS = Gauge("janus_engine_stuck_seconds", "For how long the turn that is taken has lasted; 0 between turns.")
LOADED = Gauge(
    "janus_worker_model_loaded",
    "1 for every model that the worker has loaded.",
    ["model", "family", "revision", "device", "dtype", "quantize"],
)
FREE_BYTES = Gauge("janus_worker_device_free_bytes", "Free memory of the GPU, or of the machine.", ["model"])

for _stage in STAGES:
    STAGE_SECONDS.labels(_stage)


def stage(name: str) -> Timer:
    """Times a block, or as a decorator a function, as one of STAGES."""
    return STAGE_SECONDS.labels(name).time()


class EngineMeter:
    """Counts one engine's turns; its series are looked up once. num_inside: rows that started and have not left."""

    def __init__(self, model: str) -> None:
        self.num_inside = 0
        self._turns, self._row_turns = TURNS.labels(model), ROW_TURNS.labels(model)
        self._seconds = TURN_SECONDS.labels(model)
        self._tokens, self._images = TOKENS.labels(model), IMAGES.labels(model)
        self._wait, self._compute = STAGE_SECONDS.labels("wait"), STAGE_SECONDS.labels("compute")

    def turn(self, num_rows: int, seconds: float) -> None:
        """A turn of so many rows ended."""
        self._turns.inc()
        self._row_turns.inc(num_rows)
        self._seconds.inc(seconds)

    def left(self, row: Any, submitted_at: float) -> None:
        """A row left the engine."""
        self.num_inside -= 1
        if row.begun_at is not None:
            self._wait.observe(row.begun_at - submitted_at)
            self._compute.observe(time.monotonic() - row.begun_at)
        if hasattr(row.answer, "token_ids"):
            self._tokens.inc(len(row.answer.token_ids))
        elif hasattr(row.answer, "codes"):
            self._images.inc()


def watch_host(host: Any) -> None:
    """Show the models of an EngineHost, read when Prometheus asks."""
    STUCK_SECONDS.set_function(host.stuck_seconds)
    for model in host.models:
        info = host.info(model)
        LOADED.labels(model, info.family, info.revision, info.device, info.dtype, info.quantize).set(1)
        ROW_LIMIT.labels(model).set(host.max_rows(model))
        ROWS.labels(model, "running").set_function(partial(host.num_running, model))
        ROWS.labels(model, "waiting").set_function(partial(host.num_waiting, model))
        FREE_BYTES.labels(model).set_function(partial(host.free_bytes, model))


def part_flushed(kind: str, part: Part, error_codes: Sequence[str], seconds: float) -> None:
    """A part of finished items is stored and its row committed."""
    STAGE_SECONDS.labels("flush").observe(seconds)
    count_items(kind, part.num_results, list(error_codes))
