"""`janus report`: what the morning wants to know."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import SOME_FAILED, AsJson, print_table, show, told_errors
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import ReportView

_HOURS = {"h": 1, "d": 24}


def report(
    since: Annotated[
        str,
        typer.Option(help="yesterday or today (from midnight here), 12h, 3d, or a time, 2026-11-26T22:00."),
    ] = "yesterday",
    as_json: AsJson = False,
) -> None:
    """What the team's jobs did since a time: items, rates, and why some failed. Exit 3 where some did."""
    with told_errors():
        found = connect().report(_time_of(since, datetime.now().astimezone()))
    show(found, as_json=as_json, otherwise=lambda: _print(found))
    if found.items.failures or found.states.get(JobState.failed):
        raise typer.Exit(SOME_FAILED)


def _time_of(text: str, now: datetime) -> datetime:
    """The time that a word means, in the zone of `now`. Raises typer.BadParameter."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return midnight - timedelta(days=text == "yesterday")
    if ago := re.fullmatch(r"([0-9]{1,5})([hd])", text):
        return now - timedelta(hours=int(ago[1]) * _HOURS[ago[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; give yesterday, today, 12h, 3d or 2026-11-26T22:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=now.tzinfo)


def _print(report: ReportView) -> None:
    items = report.items
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states.items())) or "none"
    print(f"since {report.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {report.num_jobs} jobs ({states})")
    print(f"{items.total} items: {items.results} results, {items.failures} failures, {items.cancelled} cancelled")
    if report.jobs:
        rows = [
            (v.id, v.kind, v.model, v.state, f"{v.items.finished}/{v.items.total}", v.items.failures,
             f"{v.items_per_second:.2f}" if v.items_per_second else "", v.name)
            for v in report.jobs
        ]  # fmt: skip
        print_table(("ID", "KIND", "MODEL", "STATE", "ITEMS", "FAILED", "ITEMS/S", "NAME"), rows)
    if report.failures:
        groups = [(f.code, f.count, f"{f.example.job} {f.example.id}", f.example.message) for f in report.failures]
        print_table(("CODE", "FAILED", "FOR EXAMPLE", "MESSAGE"), groups)
