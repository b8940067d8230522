"""A sample that has ended: show it, and ask whether the whole is to be done, otherwise, or not at all."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import typer

from orchestrator.cli.output import OK, SOME_FAILED, note, print_json, print_table
from orchestrator.cli.outputs import flags_of
from orchestrator.client import Job, Output, PackageMissing, describe
from orchestrator.domain.jobs import JobKind, JobState

ROWS, WIDTH = 20, 100  # of the table, and characters of what an item says


def decide(job: Job, output: Output, sources: Any, *, as_json: bool) -> Job:
    """The job that the person approved, of all items. Exits where there is none: rejected, or nobody to be asked."""
    while True:
        if job.view.state is not JobState.completed:
            note(f"{describe(job.view)}; a sample that did not complete cannot be approved")
            raise typer.Exit(SOME_FAILED)
        _show(job, output, sources)
        if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            _tell_commands(job, output, as_json=as_json)
            raise typer.Exit(OK)
        made = _ask(job)
        note(f"submitted {made.id}; it goes on if this is interrupted (janus jobs watch {made.id})")
        made.wait(progress=True)
        if made.view.sample is None:
            return made
        job = made


def _show(job: Job, output: Output, sources: Any) -> None:
    view = job.view
    note(f"{view.items.total} of {view.sample_total} items, {view.items.failures} failed:")
    rows = [_row(line) for line in islice(job.results(), ROWS)]
    if sys.stdout.isatty():
        print_table(("ID", "CAPTION" if view.kind is JobKind.caption else "PROMPT"), rows)
    else:  # where scripts read the output
        for item_id, said in rows:
            note(f"  {item_id}: {said}")
    if view.items.total > ROWS:
        note(f"… and {view.items.total - ROWS} more: janus jobs results {job.id}")
    sheet = output.path.parent / f"{output.path.stem}-sample.jpg"
    try:
        note(f"contact sheet: {job.contact_sheet(sheet, sources)}")
    except PackageMissing as error:
        note(f"no contact sheet: {error}")


def _row(line: Any) -> tuple[str, str]:
    failure = line.get("failure")
    text = f"{failure['code']}: {failure['message']}" if failure else line.get("caption", line.get("prompt", ""))
    return line["id"], text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _tell_commands(job: Job, output: Output, *, as_json: bool) -> None:
    if as_json:
        print_json(job.view)
    else:
        print(job.id)
    edit = " (or with --prompt TEXT, --sample N)" if job.view.kind is JobKind.caption else " (or with --sample N)"
    note(f"approve the whole: janus jobs approve {job.id}{edit}")
    note(f"then, with the id that this prints: janus jobs results ID {flags_of(output)}")
    note(f"or not: janus jobs reject {job.id}")


def _ask(job: Job) -> Job:
    """The job that was made of the answer. Exits where it was rejected."""
    can_edit = job.view.kind is JobKind.caption
    question = "[a]pprove the whole, [e]dit the prompt and look again, or [r]eject?"
    if not can_edit:
        question = "[a]pprove the whole, or [r]eject?"
    while True:
        answer = typer.prompt(question, err=True).strip().lower()[:1]
        if answer == "a":
            return job.approve()
        if answer == "e" and can_edit:
            text = typer.prompt("prompt", default=str(job.view.options["prompt"]), err=True)
            return job.approve(prompt=text, sample=job.view.sample)
        if answer == "r":
            job.reject()
            note(f"{job.id} is rejected; what it made can still be fetched: janus jobs results {job.id}")
            raise typer.Exit(OK)
