"""Estimates: measured rates, what waits ahead, and the hours of a window, put together for a job that is not made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from orchestrator.db import backlog, quotas, rates, teams, workers
from orchestrator.db.backlog import Backlog
from orchestrator.db.session import database_now
from orchestrator.domain.estimates import Ahead, Measured, after_open_seconds, seconds_of, turn_of, work_of_item
from orchestrator.domain.jobs import JobKind, options_for
from orchestrator.domain.quotas import Use, day_of
from orchestrator.domain.windows import parse_window
from orchestrator.schemas import AheadView, CaptionEstimate, EstimateView, GenerateEstimate, MeasuredView


@dataclass
class _Rates:
    """Measurements of a model's kinds, each asked for once."""

    session: Session
    model: str

    def __post_init__(self) -> None:
        self._found: dict[str, Measured | None] = {}

    def of(self, kind: str) -> Measured | None:
        if kind not in self._found:
            self._found[kind] = rates.find_measured(self.session, self.model, kind)
        return self._found[kind]


def view_estimate(
    session: Session, team_id: str, body: CaptionEstimate | GenerateEstimate, shard_items: int
) -> EstimateView:
    now, measured_of = database_now(session), _Rates(session, body.model)
    measured, team = measured_of.of(body.kind), teams.get_team(session, team_id)
    live = workers.count_alive(session, body.model)
    num_workers = live or (measured.workers if measured else 0)
    before = [job for job in backlog.list_backlog(session, body.model) if _is_ahead(job, team_id, body.priority)]
    notes = _notes(session, team_id, body, measured, live, now, shard_items)
    ahead_seconds = None
    seconds, starts_at, ends_at = None, None, None
    if measured is not None:
        ahead, unmeasured = _ahead(before, team_id, team.weight, measured_of, num_workers)
        if unmeasured:
            notes.append(f"{unmeasured} items that wait are of a kind that nobody measured; they are not counted")
        seconds = seconds_of(body.items, work_of_item(body.options), shard_items, measured, num_workers)
        begin, end = turn_of(seconds, ahead)
        window = parse_window(body.window) if body.window else None
        starts_at, ends_at = after_open_seconds(window, now, begin), after_open_seconds(window, now, end)
        if window is not None and starts_at is not None:
            starts_at = max(starts_at, window.opening(starts_at).opens_at)
        ahead_seconds = ahead.own_seconds + ahead.others_seconds
    opening = parse_window(body.window).opening(now) if body.window else None
    return EstimateView(
        kind=JobKind(body.kind),
        model=body.model,
        items=body.items,
        images=None if isinstance(body, CaptionEstimate) else body.items * body.options.images,
        seconds=seconds,
        items_per_second=body.items / seconds if seconds else None,
        workers=num_workers,
        measured=None if measured is None else _view_measured(measured),
        ahead=AheadView(jobs=len(before), items=sum(job.num_items for job in before), seconds=ahead_seconds),
        starts_at=starts_at,
        ends_at=ends_at,
        opens_at=opening.opens_at if opening else None,
        closes_at=opening.closes_at if opening else None,
        fits_window=None
        if opening is None or measured is None
        else ends_at is not None and ends_at <= opening.closes_at,
        fits_deadline=None
        if body.deadline_at is None or measured is None
        else ends_at is not None and ends_at <= body.deadline_at,
        notes=notes,
    )


def _is_ahead(job: Backlog, team_id: str, priority: int) -> bool:
    """Other teams take turns with this one; of the team itself only what has such a priority comes before."""
    return job.team_id != team_id or job.priority >= priority


def _ahead(
    before: list[Backlog], team_id: str, weight: int, measured_of: _Rates, num_workers: int
) -> tuple[Ahead, int]:
    """What waits, in seconds of all workers; and how many items nobody can say that of."""
    own = others = 0.0
    unmeasured = 0
    for job in before:
        measured = measured_of.of(job.kind)
        if measured is None:
            unmeasured += job.num_items
            continue
        work = job.num_items * work_of_item(options_for(JobKind(job.kind), job.options))
        seconds = work / num_workers / measured.work_per_second
        if job.team_id == team_id:
            own += seconds
        else:
            others += seconds
    weights = {job.team_id: job.weight for job in before if job.team_id != team_id}
    return Ahead(own, others, weight / (weight + sum(weights.values()))), unmeasured


def _notes(
    session: Session,
    team_id: str,
    body: CaptionEstimate | GenerateEstimate,
    measured: Measured | None,
    live: int,
    now: datetime,
    shard_items: int,
) -> list[str]:
    """What else there is to know, each a sentence."""
    notes = []
    if measured is None:
        notes.append(
            f"no worker computed anything of a {body.kind} job of {body.model} in the last {rates.KEPT.days} days, so "
            "nothing was measured; submit a small job first, and ask again"
        )
    if not live:
        reckoned = f"; this is reckoned with the {measured.workers} that were measured" if measured else ""
        notes.append(f"no worker serves {body.model} now{reckoned}")
    quota = quotas.quota_of(teams.get_team(session, team_id))
    if quota.per_day is not None:
        used = quotas.uses_of(session, [team_id], day_of(now)).get(team_id, Use()).today
        alone = not used and body.items <= shard_items  # a day's first shard begins however large it is
        if body.items > quota.per_day - used and not alone:
            days = -(-(body.items - max(0, quota.per_day - used)) // quota.per_day)
            midnights = f"{days} midnight{'s' if days > 1 else ''} UTC"
            notes.append(
                f"the team's quota is {quota.per_day} items a day, {used} of today's are used: it goes on over "
                f"{midnights}, which the times here do not know"
            )
    return notes


def _view_measured(measured: Measured) -> MeasuredView:
    return MeasuredView(
        items=measured.num_items,
        workers=measured.workers,
        worker_seconds=measured.worker_seconds,
        items_per_second=measured.num_items / measured.worker_seconds,
        since=measured.since,
        until=max(measured.until, measured.since + timedelta(seconds=1)),
    )
