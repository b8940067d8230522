"""Waiting shards to messages: as many as can run soon, so that Redis stays shallow and order stays ours."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.db import queueing
from orchestrator.db.queueing import Message, ReadyShard
from orchestrator.db.session import SessionFactory
from orchestrator.dispatch import metrics
from orchestrator.dispatch.broker import Broker
from orchestrator.domain.quotas import Rooms
from orchestrator.domain.turns import Head, Queued, Turn, Turns
from orchestrator.domain.windows import parse_window


class Dispatcher:
    """Publishes after the commit: a crash between the two costs a second publish, never a shard.

    Args:
        queue_depth: most shards of a model in the queue, and as many again in its express list.
    """

    def __init__(self, sessions: SessionFactory, broker: Broker, *, queue_depth: int) -> None:
        self._sessions = sessions
        self._broker = broker
        self._queue_depth = queue_depth
        self._turns: dict[str, Turns] = {}

    def run_once(self, now: datetime) -> int:
        """Dispatch what fits and may start now; the number of shards published."""
        with self._sessions.begin() as session:
            queueing.take_back_closed(session)
        with self._sessions() as session:
            models = queueing.models_of_running_jobs(session)
        for model in self._turns.keys() - set(models):
            metrics.QUOTA_WAITS.labels(model).set(0)
        return sum(self._fill(model, now) for model in models)

    def _fill(self, model: str, now: datetime) -> int:
        turns = self._turns.setdefault(model, Turns(self._queue_depth))
        published = 0
        with self._sessions() as session:
            closing = _open_windows(queueing.run_windows(session, model), now)
        while True:
            with self._sessions.begin() as session:
                turns.see(queueing.list_queued(session, model))
                ready = queueing.list_ready(session, model, open_windows=closing, limit=1)
                rooms = queueing.rooms_of(session, ready, now)
                begin = [shard for shard in ready if rooms.has(shard.team_id, shard.load)]
                metrics.QUOTA_WAITS.labels(model).set(len(ready) - len(begin))
                picked = turns.pick([Head(shard.team_id, shard.weight, shard.cost) for shard in begin])
                messages = self._dispatch(session, model, turns, picked, closing, rooms) if picked else []
            self._broker.publish(messages)
            metrics.PUBLISHED.inc(len(messages))
            published += len(messages)
            # A team may have had fewer shards than turns; others get those.
            if not messages or len(messages) == len(picked):
                return published

    def _dispatch(
        self,
        session: Session,
        model: str,
        turns: Turns,
        picked: list[Turn],
        closing: dict[str, datetime],
        rooms: Rooms,
    ) -> list[Message]:
        """The shards of those whose turn it is, in the order of their turns, as far as quotas go."""
        teams = {turn.team_id for turn in picked}
        ready = queueing.list_ready(session, model, open_windows=closing, limit=len(picked), teams=teams)
        next_of = {team: iter([shard for shard in ready if shard.team_id == team]) for team in teams}
        found = [(shard, turn) for turn in picked if (shard := next(next_of[turn.team_id], None)) is not None]
        chosen = [(shard, turn) for shard, turn in found if rooms.take(shard.team_id, shard.load)]
        sent: dict[int, Message] = {}
        for closes_at in {_closes_at(shard, closing) for shard, _ in chosen}:
            ids = [shard.id for shard, _ in chosen if _closes_at(shard, closing) == closes_at]
            sent |= {m.shard_id: m for m in queueing.dispatch(session, model, ids, closes_at=closes_at)}
        messages = []
        for shard, turn in chosen:
            if shard.id in sent:
                queued = Queued(shard.id, shard.team_id, shard.weight, shard.cost)
                turns.take(queued, is_express=turn.is_express)
                messages.append(Message(shard.id, sent[shard.id].attempt, model, turn.is_express))
        return messages


def _closes_at(shard: ReadyShard, closing: dict[str, datetime]) -> datetime | None:
    return None if shard.run_window is None else closing[shard.run_window]


def _open_windows(windows: Iterable[str], now: datetime) -> dict[str, datetime]:
    """Those that are open, each with the time at which it closes."""
    openings = {window: parse_window(window).opening(now) for window in windows}
    return {window: opening.closes_at for window, opening in openings.items() if opening.holds(now)}
