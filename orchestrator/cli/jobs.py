"""`janus jobs …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.completion import complete_ended_jobs, complete_jobs, complete_open_jobs
from orchestrator.cli.connection import connect
from orchestrator.cli.output import ERROR, AsJson, local_time, note, print_json, print_table, show, told_errors
from orchestrator.cli.outputs import ITEMS_PER_TAR, Format, ResultsThere, ShardItems, SidecarKind, Tars
from orchestrator.cli.submit import Deadline, Window, finish
from orchestrator.cli.watch import watch
from orchestrator.client import Job, Output, Sidecar, describe, format_seconds
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import JobView

app = typer.Typer(no_args_is_help=True, help="Look at jobs, change them, fetch and verify what they made.")
HELP = "The job's id, such as job_k3x…."
JobId = Annotated[str, typer.Argument(metavar="ID", help=HELP, autocompletion=complete_jobs)]
OpenJobId = Annotated[str, typer.Argument(metavar="ID", help=HELP, autocompletion=complete_open_jobs)]
EndedJobId = Annotated[str, typer.Argument(metavar="ID", help=HELP, autocompletion=complete_ended_jobs)]


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
        (
            v.id,
            v.kind,
            v.model,
            _state(v),
            f"{v.items.finished}/{v.items.total}",
            v.items.failures,
            local_time(v.created_at),
            v.name,
        )
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


app.command()(watch)


@app.command()
def results(
    job_id: JobId,
    out: Annotated[
        Path | None, typer.Option(help=".jsonl, .csv, .parquet or a folder; without it lines go to the output.")
    ] = None,
    existing: ResultsThere = None,
    form: Format = None,
    sidecar: SidecarKind = Sidecar.txt,
    tars: Tars = None,
    items_per_tar: ShardItems = ITEMS_PER_TAR,
    as_json: Annotated[bool, typer.Option("--json", help="With --out: print the job as JSON at the end.")] = False,
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
                finish(job, output, as_json=as_json)
            else:
                job.download(output)
                show(job.view, as_json=as_json, otherwise=lambda: None)
                note(f"{describe(job.view)}; what is finished is in {out}")
            return
        for line in job.finished_lines():
            sys.stdout.buffer.write(line)


@app.command()
def sheet(
    job_id: JobId,
    out: Annotated[Path | None, typer.Option(help="The .jpg to write; ID.jpg without it.")] = None,
    sources: Annotated[
        list[str] | None, typer.Option("--source", help="What was captioned, as it was given then; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A contact sheet of a job's first results: captions with their pictures, or drawn pictures with their prompts."""
    with told_errors():
        path = connect().attach(job_id).contact_sheet(out or Path(f"{job_id}.jpg"), sources)
    show({"job": job_id, "path": str(path)}, as_json=as_json, otherwise=lambda: note(f"contact sheet: {path}"))


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
def cancel(job_id: OpenJobId, as_json: AsJson = False) -> None:
    """Stop a job; what is finished stays."""
    with told_errors():
        _told(_job(job_id).cancel(), as_json=as_json)


@app.command()
def pause(job_id: OpenJobId, as_json: AsJson = False) -> None:
    """Start nothing more of a job until it is resumed."""
    with told_errors():
        _told(_job(job_id).pause(), as_json=as_json)


@app.command()
def resume(job_id: OpenJobId, as_json: AsJson = False) -> None:
    """Go on after a pause."""
    with told_errors():
        _told(_job(job_id).resume(), as_json=as_json)


@app.command()
def retry(
    job_id: EndedJobId,
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="Only failures with this code, such as url_unreachable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A new job of the items that failed, with the same ids and seeds."""
    with told_errors():
        view = _job(job_id).retry_failures(codes=codes or None).view
    _made(view, as_json=as_json)


@app.command()
def approve(
    job_id: EndedJobId,
    prompt: Annotated[str | None, typer.Option(help="Ask this instead; of captions.")] = None,
    prefix: Annotated[str | None, typer.Option(help="How every answer begins; of captions.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer, in tokens; of captions.")] = None,
    images: Annotated[int | None, typer.Option(help="Images for each prompt.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How hard images are pulled towards the prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the whole job.")] = None,
    window: Window = None,
    deadline: Deadline = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", help="A sample of N items first again, with what was changed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A job of the whole input of a sample, as the sample was or with these; what is the same is not computed again."""
    options = {"prompt": prompt, "prefix": prefix, "max_tokens": max_tokens, "images": images, "guidance": guidance,
               "temperature": temperature, "seed": seed}  # fmt: skip
    with told_errors():
        changed = {name: value for name, value in options.items() if value is not None}
        ends_at = deadline and deadline.astimezone()
        view = _job(job_id).approve(sample=sample, window=window, deadline_at=ends_at, **changed).view
    _made(view, as_json=as_json)


@app.command()
def reject(job_id: EndedJobId, as_json: AsJson = False) -> None:
    """Say that a sample is not to be approved; its input is then kept no longer than that of other jobs."""
    with told_errors():
        view = _job(job_id).reject()
    told = f"{job_id} is rejected; what it made stays until it is deleted: janus jobs delete {job_id}"
    show(view, as_json=as_json, otherwise=lambda: note(told))


@app.command()
def delete(job_id: EndedJobId, as_json: AsJson = False) -> None:
    """Delete a job that has ended, with its results, and its upload where no other job uses it."""
    with told_errors():
        _job(job_id).delete()
    told = f"{job_id} is deleted; its objects leave the store within the next minutes"
    show({"id": job_id, "deleted": True}, as_json=as_json, otherwise=lambda: note(told))


@app.command()
def verify(job_id: EndedJobId, as_json: AsJson = False) -> None:
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


def _made(view: JobView, *, as_json: bool) -> None:
    """A new job: its id for scripts, and for people what to do with it."""
    show(view, as_json=as_json, otherwise=lambda: print(view.id))
    note(f"watch: janus jobs watch {view.id}; fetch: janus jobs results {view.id} --out ...")


def _told(view: JobView, *, as_json: bool) -> None:
    show(view, as_json=as_json, otherwise=lambda: note(describe(view)))


def _state(view: JobView) -> str:
    return f"{view.state}, to approve" if view.waits_for_approval else str(view.state)


def _eta(view: JobView) -> str:
    """By the clock of this machine, and what it comes from; or why nobody knows."""
    if view.eta_at is None:
        return f"not known: {view.eta_basis}" if view.eta_basis else ""
    return f"{local_time(view.eta_at)}, {view.eta_basis}"


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
        *_sample_rows(view),
        *((f"options.{name}", value) for name, value in view.options.items() if value is not None),
        ("created", local_time(view.created_at)),
        ("finished", local_time(view.finished_at)),
    ]
    print_table(("FIELD", "VALUE"), rows)


def _sample_rows(view: JobView) -> list[tuple[str, str]]:
    """What a sample, a job that one was taken for, or a replay is about."""
    rows = {
        "sample": f"{view.sample} of {view.sample_total or 'its'} items" if view.sample else "",
        "approved job": view.approved_job or "",
        "rejected": local_time(view.rejected_at),
        "sampled by": view.sampled_by or "",
        "replay of": f"item {view.replay_index} of {view.replay_of}" if view.replay_of else "",
    }
    return [(name, value) for name, value in rows.items() if value]
