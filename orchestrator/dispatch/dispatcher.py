"""Waiting shards to messages: as many as can run soon, so that Redis stays shallow and order stays ours."""

from __future__ import annotations

from datetime import datetime

from orchestrator.db import queueing
from orchestrator.db.session import SessionFactory
from orchestrator.dispatch import metrics
from orchestrator.dispatch.broker import Broker


class Dispatcher:
    """Publishes after the commit: a crash between the two costs a second publish, never a shard."""

    def __init__(self, sessions: SessionFactory, broker: Broker, *, queue_depth: int) -> None:
        self._sessions = sessions
        self._broker = broker
        self._queue_depth = queue_depth

    def run_once(self, now: datetime) -> int:
        """Dispatch what fits; the number of shards published. `now` is not needed: order and turns are."""
        with self._sessions() as session:
            models = queueing.models_with_waiting_shards(session)
        return sum(self._fill(model) for model in models)

    def _fill(self, model: str) -> int:
        with self._sessions.begin() as session:
            free = self._queue_depth - queueing.count_dispatched(session, model)
            messages = queueing.dispatch_waiting(session, model, limit=free) if free > 0 else []
        self._broker.publish(messages)
        metrics.PUBLISHED.inc(len(messages))
        return len(messages)
