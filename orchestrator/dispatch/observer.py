"""Looks at Postgres and Redis every few seconds and sets the gauges: a scrape itself asks nothing of either."""

from __future__ import annotations

from datetime import datetime

from orchestrator.db import watching
from orchestrator.db.session import SessionFactory
from orchestrator.dispatch import metrics
from orchestrator.dispatch.broker import Broker
from orchestrator.metrics import set_all

JOB_STATES = ("accepted", "running", "paused", "finishing")


class Observer:
    """Runs in the dispatcher where JANUS_METRICS_PORT is set."""

    def __init__(self, sessions: SessionFactory, broker: Broker) -> None:
        self._sessions = sessions
        self._broker = broker

    def run_once(self, now: datetime) -> int:
        """Set every gauge; always 0, as there is nothing more to do at once."""
        with self._sessions() as session:
            jobs = watching.count_open_jobs(session)
            shards = watching.count_open_shards(session)
            queued = watching.oldest_queued(session)
            workers = watching.count_workers(session)
            heartbeats = watching.oldest_heartbeats(session)
            unserved = watching.count_unserved_jobs(session)
            dead_rows = watching.count_dead_rows(session)
        models = {model for model, _ in (*shards, *workers)}
        set_all(metrics.JOBS, {(state,): jobs.get(state, 0) for state in JOB_STATES})
        set_all(metrics.SHARDS, shards)
        ages = {model: (now - queued.get(model, now)).total_seconds() for model in models}
        set_all(metrics.READY_AGE, {(model,): age for model, age in ages.items()})
        set_all(metrics.WORKERS, workers)
        set_all(metrics.HEARTBEAT_AGE, {(model,): age for model, age in heartbeats.items()})
        set_all(metrics.UNSERVED_JOBS, {(model,): count for model, count in unserved.items()})
        set_all(metrics.DEAD_ROWS, {(table,): count for table, count in dead_rows.items()})
        set_all(metrics.QUEUE_DEPTH, {(model,): self._broker.depth(model) for model in models})
        return 0
