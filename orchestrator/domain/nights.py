"""Nights: the openings of a job's window, each told once when it is over, or when the job ends in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from orchestrator.domain.estimates import after_open_seconds, open_seconds
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.windows import Opening, parse_window

MAX_CODES = 10  # of failures, in a report


@dataclass(frozen=True)
class Night:
    """One opening of a job's window, over or cut short by the job's end.

    num_finished: items that it finished. seconds: for how long the job could run in it.
    """

    opens_at: datetime
    closes_at: datetime
    num_finished: int
    seconds: float

    @property
    def items_per_second(self) -> float | None:
        return self.num_finished / self.seconds if self.num_finished and self.seconds > 0 else None


def night_of(window: str, opening: Opening, *, started_at: datetime, until: datetime, num_finished: int) -> Night:
    """An opening as a job had it that began then, until the moment at which it is looked at."""
    closes_at = min(opening.closes_at, until)
    seconds = open_seconds(parse_window(window), max(opening.opens_at, started_at), closes_at)
    return Night(opening.opens_at, closes_at, max(0, num_finished), seconds)


def last_night(window: str, ended_at: datetime, *, started_at: datetime, told_at: datetime | None) -> Opening | None:
    """The opening that a job's end is to tell of: the one that it ended in, or the last, if nobody has told of that."""
    opening = parse_window(window).opening(ended_at)
    if opening.holds(ended_at):
        return opening
    last = parse_window(window).last_opening(ended_at)
    if last is None or last.closes_at <= started_at or (told_at is not None and told_at >= last.closes_at):
        return None
    return last


def night_over(
    *,
    job_id: str,
    name: str,
    kind: str,
    model: str,
    state: JobState,
    is_paused: bool,
    window: str,
    night: Night,
    counts: Counts,
    failures: dict[str, int],
    deadline_at: datetime | None,
    at: datetime,
) -> str:
    """The report of a night, as JSON. `failures`: of the whole job, how many by their code, the most frequent first."""
    left = counts.total - counts.finished - counts.cancelled
    rate = night.items_per_second
    ends_at = after_open_seconds(parse_window(window), night.closes_at, left / rate) if rate and left else None
    data: dict[str, Any] = {
        "id": job_id,
        "name": name,
        "kind": kind,
        "model": model,
        "state": state,
        "paused": is_paused,
        "window": window,
        "opens_at": night.opens_at.isoformat(),
        "closes_at": night.closes_at.isoformat(),
        "finished": night.num_finished,
        "seconds": night.seconds,
        "items_per_second": rate,
        "items": asdict(counts),
        "failures": dict(list(failures.items())[:MAX_CODES]),
        "remaining": left,
        "ends_at": ends_at.isoformat() if ends_at else None,
        "fits_deadline": ends_at <= deadline_at if ends_at and deadline_at else None,
        "path": f"/v1/jobs/{job_id}",
        "gallery": f"/jobs/{job_id}/gallery",
    }
    return json.dumps({"type": "job.report", "timestamp": at.isoformat(), "data": data}, ensure_ascii=False)
