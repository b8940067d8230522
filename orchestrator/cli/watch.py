"""`janus jobs watch`: jobs as they go, in a table that moves on a terminal, and in lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from orchestrator.cli.completion import complete_jobs
from orchestrator.cli.connection import connect
from orchestrator.cli.output import OK, SOME_FAILED, note, printable, told_errors
from orchestrator.client import (
    MAX_SILENCE_SECONDS,
    Client,
    ConnectionFailed,
    Job,
    ServerFault,
    describe,
    describe_rate,
)
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import JobView

LOOK_SECONDS = 1.0
BAR_WIDTH = 16
WATCHED = "Jobs to follow; without one, all of the team's that are open, those that come meanwhile too."
AS_JSON = "Print a line of JSON for each change of a job."


def watch(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help=WATCHED, autocompletion=complete_jobs)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=AS_JSON)] = False,
) -> None:
    """Follow jobs to their end: state, progress, rate, time left, and why one waits.

    Exit 3 where items of theirs have no result.
    """
    with told_errors():
        watched = Watched(connect(), job_ids or [])
        if not watched.jobs:
            note("no job is open; `janus jobs list` shows those that ended")
            raise typer.Exit(OK)
        on_terminal = sys.stdout.isatty() and not as_json
        with Live(console=Console(), auto_refresh=False) if on_terminal else nullcontext() as live:
            tell = _as_table(live) if live else _as_changes(_print_json if as_json else _print_line)
            _follow(watched, tell)
    views = [job.view for job in watched.jobs.values()]
    if any(view.items.results < view.items.total or view.state is not JobState.completed for view in views):
        raise typer.Exit(SOME_FAILED)


class Watched:
    """The jobs that are followed, in the order in which they are shown.

    Args:
        job_ids: theirs; where there are none, every job of the team that is open.
    """

    def __init__(self, client: Client, job_ids: Sequence[str]) -> None:
        self._client = client
        self._all = not job_ids
        found = self._open_jobs() if self._all else [client.attach(job_id) for job_id in job_ids]
        self.jobs: dict[str, Job] = {job.id: job for job in found}

    @property
    def ended(self) -> bool:
        return all(job.ended for job in self.jobs.values())

    def look(self) -> None:
        """See how each one stands that has not ended yet."""
        seen = {job.id: job for job in self._open_jobs()} if self._all else {}
        for job in self.jobs.values():
            if not job.ended and job.id not in seen:
                job.refresh()
        self.jobs |= seen

    def _open_jobs(self) -> list[Job]:
        """A request for each open state, however many jobs there are; the oldest job first."""
        states = [state for state in JobState if not state.ended]
        found = chain.from_iterable(self._client.jobs(state=state) for state in states)
        return sorted(found, key=lambda job: job.view.created_at)


def _follow(watched: Watched, tell: Callable[[list[JobView], str], None]) -> None:
    """Until all have ended; a server that is away for less than ten minutes is borne."""
    answered_at = time.monotonic()
    while True:
        trouble = ""
        try:
            watched.look()
            answered_at = time.monotonic()
        except (ConnectionFailed, ServerFault):
            if time.monotonic() - answered_at > MAX_SILENCE_SECONDS:
                raise
            trouble = "the server does not answer; asking again"
        tell([job.view for job in watched.jobs.values()], trouble)
        if watched.ended:
            return
        time.sleep(LOOK_SECONDS)


def _as_table(live: Live) -> Callable[[list[JobView], str], None]:
    def tell(views: list[JobView], trouble: str) -> None:
        table = _new_table(trouble)
        for view in views:
            table.add_row(*_row(view))
        live.update(table, refresh=True)

    return tell


def _new_table(trouble: str) -> Table:
    """Without rows, which its columns hold. On a narrow terminal names are cut and reasons folded, ids stay whole."""
    whole = [Column(name, no_wrap=True) for name in ("STATE", "", "ITEMS", "FAILED")]
    name = Column("NAME", no_wrap=True, overflow="ellipsis", max_width=32)
    how = Column("HOW IT GOES", overflow="fold")
    return Table(Column("ID", no_wrap=True), name, *whole, how, caption=trouble or None)


def _row(view: JobView) -> tuple[Text | ProgressBar, ...]:
    items = view.items
    bar = ProgressBar(total=items.total or None, completed=items.finished, width=BAR_WIDTH, pulse=not items.total)
    how = view.state_reason or describe_rate(view)
    texts = [view.id, view.name, view.state, f"{items.finished}/{items.total}", str(items.failures or ""), how]
    cells = [Text(printable(text)) for text in texts]
    return (*cells[:3], bar, *cells[3:])


def _as_changes(show: Callable[[JobView], None]) -> Callable[[list[JobView], str], None]:
    """Each job where it is not as it was shown last; trouble once, when it begins."""
    shown: dict[str, str] = {}

    def tell(views: list[JobView], trouble: str) -> None:
        if trouble and not shown.get("trouble"):
            note(trouble)
        shown["trouble"] = trouble
        for view in views:
            if describe(view) != shown.get(view.id):
                shown[view.id] = describe(view)
                show(view)

    return tell


def _print_json(view: JobView) -> None:
    print(json.dumps(view.model_dump(mode="json"), ensure_ascii=False), flush=True)


def _print_line(view: JobView) -> None:
    print(printable(describe(view)), flush=True)
