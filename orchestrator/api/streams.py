"""Answers that go on: how many are open, and a job's events as they happen, as server-sent events."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from fastapi import Response
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from orchestrator.api.dependencies import Services, team_session
from orchestrator.api.job_views import view_event
from orchestrator.db import events, jobs, teams
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import NotFound
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import EventView

MAX_STREAMS = 20  # of one key in one process; a browser closes those of tabs that nobody sees
MAX_SECONDS = 3600.0  # whoever listens connects anew
EVERY_SECONDS = 1.0
PAGE = 1000
UNCOMMITTED_SECONDS = 2.0  # a transaction that writes an event lasts milliseconds


class Streams:
    """How many are open, by key."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def has_room(self, key_id: str) -> bool:
        return self._open[key_id] < MAX_STREAMS

    @contextmanager
    def one(self, key_id: str) -> Iterator[None]:
        with self._lock:
            self._open[key_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[key_id] -= 1
                self._open += Counter()  # without those that are none


STREAMS = Streams()


def follow_events(services: Services, caller: Caller, job_id: str, after_id: int) -> Response:
    """What happened to a job after an event, and what happens from now on; ends when the job has ended."""
    return EventSourceResponse(_events(services, caller, job_id, after_id), ping=15)


async def _events(services: Services, caller: Caller, job_id: str, after_id: int) -> AsyncIterator[dict[str, str]]:
    give_up_at = asyncio.get_running_loop().time() + MAX_SECONDS
    with STREAMS.one(caller.key_id):
        while asyncio.get_running_loop().time() < give_up_at:
            try:
                found, is_over = await run_in_threadpool(_look, services, caller, job_id, after_id)
            except NotFound:
                return
            for event in found:
                after_id = event.id
                yield {"id": str(event.id), "event": event.type, "data": event.model_dump_json()}
            if is_over:
                return
            if len(found) < PAGE:
                await asyncio.sleep(EVERY_SECONDS)


def _look(services: Services, caller: Caller, job_id: str, after_id: int) -> tuple[Sequence[EventView], bool]:
    """The next events, and whether there will be no more: the job had ended before they were asked for.

    Until then those of the last seconds are left for later: one with a lower id may still be uncommitted.
    """
    with services.sessions() as session:
        if teams.find_live_key(session, caller.key_id) is None:
            return [], True  # it was revoked since the stream began
    with team_session(services, caller) as session:
        has_ended = JobState(jobs.get_job(session, job_id).state).ended
        age = 0.0 if has_ended else UNCOMMITTED_SECONDS
        rows = events.list_events(session, job_id, after_id=after_id, limit=PAGE, older_than_seconds=age)
        found = [view_event(row) for row in rows]
    return found, has_ended and len(found) < PAGE
