"""`janus jobs …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import ERROR, SOME_FAILED, AsJson, note, print_json, print_table, show, told_errors
from orchestrator.cli.outputs import ITEMS_PER_TAR, Format, ShardItems, SidecarKind, Tars, WhatExists
from orchestrator.cli.submit import finish
from orchestrator.client import Job, Output, Sidecar, describe, format_seconds
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import JobView

app = typer.Typer(no_args_is_help=True, help="Look at jobs, change them, fetch and verify what they made.")
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, such as job_k3x….")]


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The team's jobs, newest first."""
    with told_errors():
        found = [job.view for _, job in zip(range(limit), connect().jobs(state=state), strict=False)]
    rows = [
        (v.id, v.kind, v.model, v.state, f"{v.items.finished}/{v.items.total}", v.items.failures, _age(v), v.name)
        for v in found
    ]
    headers = ("ID", "KIND", "MODEL", "STATE", "ITEMS", "FAILED", "CREATED", "NAME")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


@app.command("show")
def show_job(job_id: JobId, as_json: AsJson = False) -> None:
    """One job in full."""
    with told_errors():
        view = connect().attach(job_id).view
    show(view, as_json=as_json, otherwise=lambda: _print_view(view))


@app.command()
def watch(job_id: JobId) -> None:
    """Follow a job to its end."""
    with told_errors():
        job = connect().attach(job_id)
        view = job.wait(progress=True)
    note(describe(view))
    if view.items.failures or view.state is not JobState.completed:
        raise typer.Exit(SOME_FAILED)


@app.command()
def results(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option(help=".jsonl, .csv, .parquet or a folder; without it lines go to the output.")
    ] = None,
    existing: WhatExists = None,
    form: Format = None,
    sidecar: SidecarKind = Sidecar.txt,
    tars: Tars = None,
    items_per_tar: ShardItems = ITEMS_PER_TAR,
) -> None:
    """Fetch what is finished, while the job runs or after."""
    with told_errors():
        if out is not None:
            output = Output.of(
                out, form, existing=existing, sidecar=sidecar, tars=tars or (), shard_items=items_per_tar
            )
        job = connect().attach(job_id)
        if out is not None:
            if job.ended:
                finish(job, output, as_json=False)
            else:
                job.download(output)
                note(f"{describe(job.view)}; what is finished is in {out}")
            return
        for line in job.finished_lines():
            sys.stdout.buffer.write(line)


@app.command()
def failures(job_id: JobId, as_json: AsJson = False) -> None:
    """Items without a result, and why."""
    with told_errors():
        found = list(connect().attach(job_id).failures())
    rows = [(f.index, f.id, f.code, f.attempts, f.message) for f in found]
    headers = ("INDEX", "ID", "CODE", "ATTEMPTS", "MESSAGE")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


@app.command()
def events(job_id: JobId, as_json: AsJson = False) -> None:
    """What happened to a job and its shards, in order."""
    with told_errors():
        found = list(connect().attach(job_id).events())
    rows = [(e.at.isoformat(timespec="milliseconds"), e.type, e.shard_id or "", e.attempt or "", e.data) for e in found]
    show(found, as_json=as_json, otherwise=lambda: print_table(("AT", "EVENT", "SHARD", "ATTEMPT", "DATA"), rows))


@app.command()
def cancel(job_id: JobId) -> None:
    """Stop a job; what is finished stays."""
    with told_errors():
        note(describe(_job(job_id).cancel()))


@app.command()
def pause(job_id: JobId) -> None:
    """Start nothing more of a job until it is resumed."""
    with told_errors():
        note(describe(_job(job_id).pause()))


@app.command()
def resume(job_id: JobId) -> None:
    """Go on after a pause."""
    with told_errors():
        note(describe(_job(job_id).resume()))


@app.command()
def retry(
    job_id: JobId,
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="Only failures with this code, such as url_unreachable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A new job of the items that failed, with the same ids and seeds."""
    with told_errors():
        view = _job(job_id).retry_failures(codes=codes or None).view
    show(view, as_json=as_json, otherwise=lambda: print(view.id))


@app.command()
def delete(job_id: JobId) -> None:
    """Delete a job that has ended, with its results, and its upload where no other job uses it."""
    with told_errors():
        _job(job_id).delete()
    note(f"{job_id} is deleted; its objects leave the store within the next minutes")


@app.command()
def verify(job_id: JobId, as_json: AsJson = False) -> None:
    """Recompute the job's promise from its objects: every item once, every digest right. Exit 1 where it is broken."""
    with told_errors():
        found = _job(job_id).verify()
    if as_json:
        print_json({"job": found.job, "ok": found.ok, "items": found.items, "objects": found.objects,
                    "problems": found.problems})  # fmt: skip
    elif found.ok:
        print(f"{found.job}: {found.items} items and {found.objects} objects are as they were made")
    for problem in found.problems:
        note(f"{found.job}: {problem}")
    if not found.ok:
        raise typer.Exit(ERROR)


def _job(job_id: str) -> Job:
    return connect().attach(job_id)


def _age(view: JobView) -> str:
    return view.created_at.strftime("%Y-%m-%d %H:%M")


def _eta(view: JobView) -> str:
    """By the clock of this machine, and what it comes from; or why nobody knows."""
    if view.eta_at is None:
        return f"not known: {view.eta_basis}" if view.eta_basis else ""
    return f"{view.eta_at.astimezone():%Y-%m-%d %H:%M}, {view.eta_basis}"


def _print_view(view: JobView) -> None:
    items = view.items
    rows = [
        ("id", view.id),
        ("name", view.name),
        ("kind", view.kind),
        ("model", view.model),
        ("state", view.state),
        ("items", f"{items.total}: {items.results} results, {items.failures} failures, {items.cancelled} cancelled"),
        ("rate", f"{view.items_per_second:.2f} items/s" if view.items_per_second else ""),
        ("left", format_seconds(view.eta_seconds) if view.eta_seconds is not None else ""),
        ("done at", _eta(view)),
        ("reason", view.state_reason or view.waiting_reason or ""),
        *((f"options.{name}", value) for name, value in view.options.items() if value is not None),
        ("created", view.created_at.isoformat(timespec="seconds")),
        ("finished", view.finished_at.isoformat(timespec="seconds") if view.finished_at else ""),
    ]
    print_table(("FIELD", "VALUE"), rows)
