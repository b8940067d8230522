"""Tells of nights that are over: what a job's window brought, once for each, however often this process begins anew."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.db import jobs, nights
from orchestrator.db.session import SessionFactory
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain.windows import Opening, parse_window

AT_ONCE = 100  # jobs of a window
PATIENCE = timedelta(minutes=5)  # for what workers still finish


class Reporter:
    def __init__(self, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._one_by_one = OneByOne("reporter", "job")

    def run_once(self, now: datetime) -> int:
        """Write the reports of nights that are over; how many jobs it told of."""
        with self._sessions() as session:
            windows = nights.windows_of_running_jobs(session)
        over = {window: night for window in windows if (night := parse_window(window).last_opening(now)) is not None}
        return sum(self._tell(window, night, now) for window, night in over.items())

    def _tell(self, window: str, night: Opening, now: datetime) -> int:
        waits = now < night.closes_at + PATIENCE
        with self._sessions() as session:
            found = [job.id for job in nights.list_untold(session, window, night, waits=waits, limit=AT_ONCE)]
        return self._one_by_one.run(found, lambda job_id: self._tell_one(job_id, night), _say_nothing)

    def _tell_one(self, job_id: str, night: Opening) -> bool:
        with self._sessions.begin() as session:
            job = jobs.get_job(session, job_id)
            return nights.tell(session, job, jobs.counts_of(session, [job])[job.id], night)


def _say_nothing(job_id: str, tries: int, error: Exception) -> None:
    """The log has it; the next round tries again."""
