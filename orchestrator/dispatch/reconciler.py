"""Lost messages: what Postgres calls dispatched and nobody leases is published again.

This alone covers a flushed or restarted Redis, a message lost between pop and ack, a publish that failed, and a worker
that died before it took the lease.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.db import queueing, workers
from orchestrator.db.session import SessionFactory
from orchestrator.dispatch import metrics
from orchestrator.dispatch.broker import Broker

PATIENCE = 20  # rounds of `republish_seconds` after which a shard is published again even though the queue looks full


class Reconciler:
    """A second message for a shard is harmless: only one can take the lease of an attempt."""

    def __init__(self, sessions: SessionFactory, broker: Broker, *, republish_seconds: float) -> None:
        self._sessions = sessions
        self._broker = broker
        self._republish = timedelta(seconds=republish_seconds)

    def run_once(self, now: datetime) -> int:
        """Publish again what was published before `now` - republish_seconds and is missing; how many."""
        with self._sessions() as session:
            models = queueing.models_with_dispatched_shards(session)
            served = workers.models_served(session)
        # Where nobody listens, a second message would only lie beside the first.
        return sum(self._republish_lost(model, now) for model in models if model in served)

    def _republish_lost(self, model: str, now: datetime) -> int:
        depth = self._broker.depth(model)
        with self._sessions.begin() as session:
            all_in_queue = depth >= queueing.count_dispatched(session, model)
            age = self._republish * (PATIENCE if all_in_queue else 1)
            messages = queueing.take_unanswered(session, model, published_before=now - age)
        self._broker.publish(messages)
        metrics.REPUBLISHED.inc(len(messages))
        return len(messages)
