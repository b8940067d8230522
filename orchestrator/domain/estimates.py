"""When work will be done: at measured rates, behind what waits already, and inside the hours that a window leaves.

Work is counted in units that take a worker equally long: of captions an item, of drawings an image's step. How long a
caption gets, and how large images are, is not in it; what was measured lately stands for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.jobs import CaptionOptions, Options
from orchestrator.domain.windows import Window

USUAL_STEPS = 30  # JanusFlow's; of models without steps every image has as many, so it changes nothing
MAX_OPENINGS = 1000  # of a window that are looked at: what is not done then is not told a date
MAX_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class Measured:
    """What workers did lately with a model and kind.

    Args:
        worker_seconds: for how long they had such work, summed over the workers.
    """

    num_items: int
    work: float
    worker_seconds: float
    workers: int
    since: datetime
    until: datetime

    @property
    def work_per_second(self) -> float:
        """Of one worker."""
        return self.work / self.worker_seconds


@dataclass(frozen=True)
class Ahead:
    """What is queued already, in seconds of all workers.

    Args:
        own_seconds: of the team's jobs that come before.
        others_seconds: of other teams' jobs, which take turns with the team's.
        share: of the workers that the team has while others have work; above 0, and 1 where there are no others.
    """

    own_seconds: float = 0.0
    others_seconds: float = 0.0
    share: float = 1.0


def work_of_item(options: Options) -> float:
    """Units of work of one item of a job."""
    if isinstance(options, CaptionOptions):
        return 1.0
    calls = 2 if options.solver == "heun" else 1
    return float(options.images * (options.steps or USUAL_STEPS) * calls)


def seconds_of(num_items: int, work_of_one: float, shard_items: int, measured: Measured, workers: int) -> float:
    """How long items take that have all workers for themselves: no less than a shard takes, as one worker has it."""
    work, longest = num_items * work_of_one, min(num_items, shard_items) * work_of_one
    return max(work / workers, longest) / measured.work_per_second


def turn_of(seconds: float, ahead: Ahead) -> tuple[float, float]:
    """When work begins and is done, in seconds of all workers from now.

    While other teams have work the team gets its share; when theirs is done, everything.
    """

    def done(own_seconds: float) -> float:
        return min(own_seconds / ahead.share, own_seconds + ahead.others_seconds)

    return done(ahead.own_seconds), done(ahead.own_seconds + seconds)


def after_open_seconds(window: Window | None, begin: datetime, seconds: float) -> datetime | None:
    """When so many seconds have passed in which the window was open; None where that is years away."""
    if seconds > MAX_SECONDS:
        return None
    if window is None:
        return begin + timedelta(seconds=seconds)
    moment, left = begin, timedelta(seconds=seconds)
    for _ in range(MAX_OPENINGS):
        opening = window.opening(moment)
        moment = max(moment, opening.opens_at)
        if moment + left <= opening.closes_at:
            return moment + left
        left -= opening.closes_at - moment
        moment = opening.closes_at
    return None


def open_seconds(window: Window | None, begin: datetime, end: datetime) -> float:
    """For how many of the seconds between two moments the window was open; of very many openings the first ones."""
    if window is None:
        return max(0.0, (end - begin).total_seconds())
    moment, total = begin, timedelta()
    for _ in range(MAX_OPENINGS):
        opening = window.opening(moment)
        moment = max(moment, opening.opens_at)
        if moment >= end:
            break
        total += min(opening.closes_at, end) - moment
        moment = opening.closes_at
    return total.total_seconds()
