"""The clock that duties go by is the database's, and is not asked for at every round."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import event

from orchestrator.db.session import SessionFactory, database_now
from orchestrator.dispatch.loops import DatabaseClock

pytestmark = pytest.mark.services


@pytest.mark.parametrize(("every_seconds", "most"), [(60, 1), (0, 5)])
def test_the_time_goes_on_between_two_questions(sessions: SessionFactory, every_seconds: float, most: int) -> None:
    asked: list[str] = []
    with sessions() as session:
        event.listen(session.get_bind(), "before_cursor_execute", lambda *args: asked.append(args[2]))
    clock = DatabaseClock(sessions, every_seconds=every_seconds)
    told = []
    for _ in range(5):
        told.append(clock.now())
        time.sleep(0.02)
    assert sum("clock_timestamp" in statement for statement in asked) == most
    assert told == sorted(set(told))
    with sessions() as session:
        assert abs((database_now(session) - clock.now()).total_seconds()) < 0.5
