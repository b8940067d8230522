"""`--estimate` of `janus caption` and `janus generate`: what a job would take, in words."""

from __future__ import annotations

from orchestrator.cli.output import local_time, show
from orchestrator.client import format_seconds
from orchestrator.schemas import EstimateView


def show_estimate(view: EstimateView, *, as_json: bool) -> None:
    show(view, as_json=as_json, otherwise=lambda: print("\n".join(in_words(view))))


def in_words(view: EstimateView) -> list[str]:
    """Sentences, for somebody who decides whether to submit."""
    workers = _count(view.workers, "worker")
    pictures = f" ({_count(view.images, 'picture')})" if view.images not in (None, view.items) else ""
    lines = [f"{_count(view.items, 'item')}{pictures} of a {view.kind} job of {view.model}"]
    if view.measured is not None and view.seconds is not None:
        lines[0] += f": {format_seconds(view.seconds)} of work for {workers}"
        measured = view.measured
        when = f"from {local_time(measured.since)} to {local_time(measured.until)}"
        lines.append(
            f"measured: {_count(measured.items, 'item')} by {_count(measured.workers, 'worker')}, "
            f"{measured.items_per_second:.3g} items/s each, {when}"
        )
    lines.append(_ahead(view))
    if view.starts_at is not None:
        lines.append(f"begins: {local_time(view.starts_at)}")
    if view.ends_at is not None:
        lines.append(f"done: {local_time(view.ends_at)}")
    elif view.seconds is not None:
        lines.append("done: not within years, in this window")
    if view.fits_window is not None and view.opens_at is not None and view.closes_at is not None:
        fits = "it fits" if view.fits_window else "it does not fit, and goes on in the next ones"
        lines.append(f"window: {local_time(view.opens_at)} to {local_time(view.closes_at)}: {fits}")
    if view.fits_deadline is not None:
        lines.append("deadline: " + ("met" if view.fits_deadline else "not met: what is not done then is cancelled"))
    return [*lines, *(f"note: {note}" for note in view.notes)]


def _ahead(view: EstimateView) -> str:
    ahead = view.ahead
    if not ahead.jobs:
        return "ahead: nothing waits"
    seconds = f", {format_seconds(ahead.seconds)} of work" if ahead.seconds is not None else ""
    return f"ahead, or beside it: {_count(ahead.jobs, 'job')} with {_count(ahead.items, 'item')}{seconds}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
