"""How a job goes: on a terminal and in a notebook a bar with rate and ETA, elsewhere a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from orchestrator.schemas import JobView

PLAIN_SECONDS = 5.0


class ProgressBar:
    """Shows on standard error, so that output can be piped."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain = 0.0
        self._last_text = ""
        self._silent = False
        console = Console(stderr=True)
        if enabled and (sys.stderr.isatty() or _can_show_widgets(console)):
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn(
                    "{task.fields[rate]}", markup=False, table_column=Column(overflow="fold")
                ),  # reasons are long
            )
            self._progress = Progress(*columns, console=console)

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task("", total=None, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.refresh()  # in a notebook stopping shows nothing more
            self._progress.stop()

    def show(self, view: JobView) -> None:
        self._silent = False
        if not self._enabled:
            return
        if self._progress and self._task is not None:
            self._progress.update(
                self._task,
                description=view.state.value,
                completed=view.items.finished,
                total=view.items.total or None,
                rate=", ".join(text for text in (_describe_failures(view), describe_rate(view)) if text),
            )
            return
        text = describe(view)
        due = time.monotonic() - self._last_plain >= PLAIN_SECONDS
        if text != self._last_text and (due or view.state.ended):
            self._last_plain, self._last_text = time.monotonic(), text
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def tell_silence(self, job_id: str) -> None:
        """Say once that the server does not answer, until it does again."""
        if self._silent or not self._enabled:
            return
        self._silent, self._last_text = True, ""
        if self._progress and self._task is not None:
            self._progress.update(self._task, rate="the server does not answer; asking again")
            return
        print(f"{job_id}: the server does not answer; asking again", file=sys.stderr, flush=True)  # noqa: T201


def _can_show_widgets(console: Console) -> bool:
    """In a notebook a bar is a widget."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def describe(view: JobView) -> str:
    """A job in a line."""
    items = view.items
    text = f"{view.id} {view.state}: " + (f"{items.finished}/{items.total} items" if items.total else "no items yet")
    return ", ".join(part for part in (text, _describe_failures(view), describe_rate(view)) if part)


def _describe_failures(view: JobView) -> str:
    return f"{view.items.failures} failed" if view.items.failures else ""


def describe_rate(view: JobView) -> str:
    """Rate, or why nothing comes out now, and ETA."""
    if view.state.ended:
        return f"{view.items_per_second:.1f} items/s" if view.items_per_second else ""
    rate = f"{view.items_per_second:.1f} items/s" if view.items_per_second else ""
    left = f"{format_seconds(view.eta_seconds)} left" if view.eta_seconds is not None else ""
    return ", ".join(part for part in (view.waiting_reason or rate, left) if part)


def format_seconds(seconds: float) -> str:
    """3725 -> 1h02m."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
