"""When a running job will be done, in its window's hours: by its own pace of late, else by what workers did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from orchestrator.db import jobs, rates, workers
from orchestrator.db.tables import JobRow
from orchestrator.domain.estimates import Measured, after_open_seconds, work_of_item
from orchestrator.domain.jobs import Counts, JobKind, JobState, options_for
from orchestrator.domain.quotas import Quota, Use
from orchestrator.domain.windows import parse_window

RECENT = jobs.RECENT


@dataclass(frozen=True)
class Eta:
    """basis: what it comes from, or why there is none. Both are None of jobs that have ended."""

    at: datetime | None = None
    basis: str | None = None


class Etas:
    """Of jobs that are looked at together: each model's rate is asked for once, and only where it is wanted.

    Args:
        quotas: of the teams that have one which may hold back a shard, with what they use.
    """

    def __init__(self, session: Session, now: datetime, quotas: Mapping[str, tuple[Quota, Use]]) -> None:
        self._session = session
        self._now = now
        self._quotas = quotas
        self._measured: dict[tuple[str, str], Measured | None] = {}
        self._live: dict[str, int] = {}

    def of(self, job: JobRow, counts: Counts, num_recent: int) -> Eta:
        if (why := _why_none(job, counts)) is not None:
            return why
        left = counts.total - counts.finished
        quota, use = self._quotas.get(job.team_id, (Quota(), Use()))
        if (
            quota.per_day is not None and left - use.in_flight > quota.per_day - use.today
        ):  # of those in flight the day knows already
            return Eta(None, f"the team's quota of {quota.per_day} items a day decides")
        rate, basis = self._pace(job, counts, num_recent) or self._rate_of_workers(job)
        if rate is None:
            return Eta(None, basis)
        window = parse_window(job.run_window) if job.run_window else None
        at = after_open_seconds(window, self._now, left / rate)
        return Eta(at, basis) if at is not None else Eta(None, f"{basis}, it takes years")

    def _pace(self, job: JobRow, counts: Counts, num_recent: int) -> tuple[float, str] | None:
        """Of the last quarter of an hour, or of the time since it began or its window opened."""
        began = job.started_at or self._now
        opened = parse_window(job.run_window).opening(self._now).opens_at if job.run_window else began
        since = max(began, opened, self._now - RECENT)
        seconds = (self._now - since).total_seconds()
        num_items = counts.finished if since == began else num_recent
        if seconds <= 0 or not num_items:
            return None
        minutes = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        return num_items / seconds, f"at its own pace: {num_items} items in the last {minutes}"

    def _rate_of_workers(self, job: JobRow) -> tuple[float | None, str]:
        """Of all that serve the model now, if they had nothing else to do."""
        key = (job.model, job.kind)
        if key not in self._measured:
            self._measured[key] = rates.find_measured(self._session, *key)
        measured = self._measured[key]
        if measured is None:
            days = rates.KEPT.days
            return None, f"nothing was measured: no {job.kind} job of {job.model} had a result in the last {days} days"
        if job.model not in self._live:
            self._live[job.model] = workers.count_alive(self._session, job.model)
        live = self._live[job.model]
        if not live:
            return None, f"no worker serves {job.model} now"
        work = work_of_item(options_for(JobKind(job.kind), job.options))
        rate = live * measured.work_per_second / work
        text = f"{live} workers" if live > 1 else "1 worker"
        return rate, f"if it has {text} for itself, at {rate:.3g} items/s as measured until {_clock(measured.until)}"


def _why_none(job: JobRow, counts: Counts) -> Eta | None:
    if JobState(job.state).ended:
        return Eta()
    if job.cancel_requested_at is not None:
        return Eta(None, "it is being stopped")
    if job.state == JobState.accepted:
        return Eta(None, "its input is being read")
    if job.paused_at is not None:
        return Eta(None, "it is paused")
    if job.state == JobState.finishing or counts.finished == counts.total:
        return Eta(None, "its results are being merged")
    return None


def _clock(moment: datetime) -> str:
    return f"{moment + timedelta(seconds=30):%Y-%m-%d %H:%M} UTC"
