"""Measures what teams with a quota of bytes keep in the store: below each upload and job, again while more may come.

It looks for a fifth of a second in each round. A place is looked at again after a minute, or after twenty times what
the last look took, so that one with a million objects is not listed all the time.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import stored
from orchestrator.db.session import SessionFactory, database_now, try_lock
from orchestrator.db.stored import Place
from orchestrator.dispatch.one_by_one import OneByOne

AT_ONCE = 50  # places of a round
ROUND_SECONDS = 0.2
AGAIN_SECONDS = 60.0
SUM_EVERY = timedelta(seconds=20)


class Meter:
    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, again_seconds: float = AGAIN_SECONDS) -> None:
        self._sessions = sessions
        self._store = store
        self._again_seconds = again_seconds
        self._one_by_one = OneByOne("meter", "place")

    def run_once(self, now: datetime) -> int:
        """Measure what is due, and sum up for teams of which something was; how many places. One process at a time."""
        with self._sessions() as lock:
            if not try_lock(lock, "meter"):
                return 0
            with self._sessions() as session:
                due = stored.list_due(session, now, limit=AT_ONCE)
            end_at, team_ids = time.monotonic() + ROUND_SECONDS, set[str]()
            measured = self._one_by_one.run(due, lambda place: self._measure(place, end_at, team_ids), _say_nothing)
            with self._sessions.begin() as session:
                for team_id in sorted(team_ids.union(stored.list_outdated(session, now, older_than=SUM_EVERY))):
                    stored.sum_up(session, team_id)
        return measured

    def _measure(self, place: Place, end_at: float, team_ids: set[str]) -> bool:
        began = time.monotonic()
        if began > end_at:
            return False
        with self._sessions() as session:
            looked_at = database_now(session)
        num_bytes = sum(found.num_bytes for found in self._store.list(place.prefix))
        pause = timedelta(seconds=max(self._again_seconds, 20 * (time.monotonic() - began)))
        with self._sessions.begin() as session:
            stored.note(session, place, num_bytes, looked_at=looked_at, pause=pause)
        team_ids.add(place.team_id)
        return True


def _say_nothing(place: Place, tries: int, error: Exception) -> None:
    """The log has it; the next round tries again."""
