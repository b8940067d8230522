"""`janus caption` and `janus generate`: submit, watch, write what came back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.completion import complete_models
from orchestrator.cli.connection import connect_for_work
from orchestrator.cli.estimate import show_estimate
from orchestrator.cli.output import OK, SOME_FAILED, note, print_json, told_errors
from orchestrator.cli.outputs import (
    ITEMS_PER_TAR,
    Format,
    ShardItems,
    SidecarKind,
    Tars,
    WhatExists,
    flags_of,
)
from orchestrator.cli.samples import decide
from orchestrator.client import Form, Job, NothingToSubmit, Output, Sidecar, check_options
from orchestrator.domain.jobs import JobKind, JobState
from orchestrator.domain.strata import MAX_SAMPLE

Model = Annotated[
    str | None,
    typer.Option(
        help="A registry name, or a checkpoint folder for the local stack; janus-tiny where none is served.",
        autocompletion=complete_models,
    ),
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy; above, answers are sampled.")]
TopP = Annotated[float | None, typer.Option(help="Sample from the likeliest tokens that make up this share.")]
TopK = Annotated[int | None, typer.Option(help="Sample from this many tokens; 0 is off.")]
Seed = Annotated[
    int | None, typer.Option(help="Each item's seed follows from it; the same seed gives the same answers.")
]
JobName = Annotated[str | None, typer.Option("--name", help="What the job is called in lists.")]
Window = Annotated[str | None, typer.Option(help="When it may run, such as 'Mon-Fri 22:00-06:00 Europe/Berlin'.")]
Deadline = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M%z"], help="When it ends, finished or not; local time."),
]
Reuse = Annotated[bool, typer.Option(help="Take results that the team has, the default; or compute everything anew.")]
Sample = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MAX_SAMPLE, help="Do N items from all over the input first, and ask."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit and end; `janus jobs results ID` fetches later.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Say how long it would take, and submit nothing.")]
JobAsJson = Annotated[bool, typer.Option("--json", help="Print the job as JSON at the end.")]

IdColumn = Annotated[str | None, typer.Option(help="The column of a table that holds ids; `id` where there is one.")]
PromptColumn = Annotated[str | None, typer.Option(help="The column of a table that holds prompts.")]
SOURCES = "Images, folders, globs, .jsonl, .csv, .parquet, .tar (shard-{000..009}.tar), or s3://bucket/folder/."
CAPTION_PROMPT = "What to ask about each image; {tags} is replaced by the item's field of that name."
PROMPT_FILE = "A text file with a prompt a line, or .jsonl, .csv, .parquet."
TEMPLATE = "The prompt of each row of a table, such as 'a {color} {animal}'."
SWEEP = "An option with several values, such as guidance=3,5,7; once for each option. Every combination is drawn."

AVOID = "A word or phrase that the model does not say, at the beginning of a word; may be given again."
GUIDANCE = "1 is the plain prompt; above, images are pulled harder towards it; 0 ignores the prompt."
SOLVER = "JanusFlow only: heun asks the model twice a step, and needs fewer steps than euler."
SAME_AGAIN = frozenset(
    {"item_invalid", "prompt_empty", "image_unreadable", "image_too_large"}
)  # failures that another try cannot change
MAX_FAILURES_LOOKED_AT = 10_000


def caption(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help=SOURCES)],
    out: Annotated[Path, typer.Option(help=".jsonl, .csv, .parquet, or a folder for a .txt beside each name.")],
    model: Model = None,
    prompt: Annotated[str | None, typer.Option(help=CAPTION_PROMPT)] = None,
    image_column: Annotated[str | None, typer.Option(help="The column of a table that holds images.")] = None,
    id_column: IdColumn = None,
    prompt_column: PromptColumn = None,
    prefix: Annotated[str | None, typer.Option(help="How every answer begins; the model goes on from there.")] = None,
    avoid: Annotated[list[str] | None, typer.Option(help=AVOID)] = None,
    min_tokens: Annotated[int | None, typer.Option(help="The shortest answer, in tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer, in tokens.")] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    existing: WhatExists = None,
    form: Format = None,
    sidecar: SidecarKind = Sidecar.txt,
    tars: Tars = None,
    items_per_tar: ShardItems = ITEMS_PER_TAR,
    name: JobName = None,
    window: Window = None,
    deadline: Deadline = None,
    reuse: Reuse = True,
    sample: Sample = None,
    estimate: Estimate = False,
    detach: Detach = False,
    as_json: JobAsJson = False,
) -> None:
    """Caption images in bulk, or ask a question about each."""
    options = _given(
        prompt=prompt,
        prefix=prefix,
        avoid=avoid or None,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
    )
    with told_errors():
        check_options(JobKind.caption, options)
        if tars is None and form is Form.webdataset:
            tars = [Path(source) for source in sources if source.endswith(".tar")]
        output = Output.of(out, form, existing=existing, sidecar=sidecar, tars=tars or (), shard_items=items_per_tar)
        connection = connect_for_work(model)
        with _done_already():
            asked: dict[str, Any] = {
                "image_column": image_column,
                "id_column": id_column,
                "prompt_column": prompt_column,
                "model": connection.model,
                "window": window,
                "deadline_at": deadline and deadline.astimezone(),
                "out": output,
                **options,
            }
            if estimate:
                show_estimate(connection.client.estimate(JobKind.caption, sources, **asked), as_json=as_json)
                return
            job = connection.client.caption(sources, name=name, reuse=reuse, sample=sample, **asked)
        _see_through(job, output, sources, detach=detach, as_json=as_json)


def generate(
    out: Annotated[
        Path,
        typer.Option(help="A folder for the images; .jsonl, .csv and .parquet name them only."),
    ],
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw.")] = None,
    file: Annotated[Path | None, typer.Option(help=PROMPT_FILE)] = None,
    template: Annotated[str | None, typer.Option(help=TEMPLATE)] = None,
    id_column: IdColumn = None,
    prompt_column: PromptColumn = None,
    sweep: Annotated[list[str] | None, typer.Option(help=SWEEP)] = None,
    model: Model = None,
    images: Annotated[int | None, typer.Option(help="Images for each prompt.")] = None,
    guidance: Annotated[float | None, typer.Option(help=GUIDANCE)] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    steps: Annotated[int | None, typer.Option(help="JanusFlow only: steps from noise to image.")] = None,
    solver: Annotated[Literal["euler", "heun"] | None, typer.Option(help=SOLVER)] = None,
    seed: Seed = None,
    existing: WhatExists = None,
    form: Format = None,
    items_per_tar: ShardItems = ITEMS_PER_TAR,
    name: JobName = None,
    window: Window = None,
    deadline: Deadline = None,
    reuse: Reuse = True,
    sample: Sample = None,
    estimate: Estimate = False,
    detach: Detach = False,
    as_json: JobAsJson = False,
) -> None:
    """Draw images from prompts."""
    if not prompts and file is None:
        raise typer.BadParameter("give prompts, or --file with a prompt a line")
    options = _given(
        images=images,
        guidance=guidance,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        steps=steps,
        solver=solver,
        seed=seed,
    )
    swept = _swept(sweep or [])
    with told_errors():
        check_options(JobKind.generate, options)
        output = Output.of(out, form, existing=existing, shard_items=items_per_tar)
        connection = connect_for_work(model)
        with _done_already():
            asked: dict[str, Any] = {
                "file": file,
                "template": template,
                "id_column": id_column,
                "prompt_column": prompt_column,
                "sweep": swept,
                "model": connection.model,
                "window": window,
                "deadline_at": deadline and deadline.astimezone(),
                "out": output,
                **options,
            }
            if estimate:
                show_estimate(connection.client.estimate(JobKind.generate, prompts or [], **asked), as_json=as_json)
                return
            job = connection.client.generate(prompts or [], name=name, reuse=reuse, sample=sample, **asked)
        _see_through(job, output, None, detach=detach, as_json=as_json)


@contextmanager
def _done_already() -> Iterator[None]:
    """Where `--existing skip` leaves nothing to do, that is no error."""
    try:
        yield
    except NothingToSubmit as error:
        if not error.done_already:
            raise
        note(str(error))
        raise typer.Exit(OK) from None


def finish(job: Job, output: Output, *, as_json: bool) -> None:
    """Write what an ended job has; exit 3 where some items failed."""
    job.download(output)
    items = job.view.items
    if as_json:
        print_json(job.view)
    reused = f" ({items.reused} used again)" if items.reused else ""
    note(f"{items.results} results{reused}, {items.failures} failures, {items.cancelled} cancelled -> {output.path}")
    if job.view.state is JobState.failed:
        note(f"the job failed: {job.view.state_reason}")
    if items.failures:
        first = next(job.failures())
        note(f"first failure: {first.id}: {first.code}: {first.message}")
        again = f"; try them again: janus jobs retry {job.id}" if _worth_another_try(job) else ""
        note(f"all of them: janus jobs failures {job.id}{again}")
    if items.results < items.total or not items.total:
        raise typer.Exit(SOME_FAILED)


def _worth_another_try(job: Job) -> bool:
    return any(failure.code not in SAME_AGAIN for failure in islice(job.failures(), MAX_FAILURES_LOOKED_AT))


def _see_through(job: Job, output: Output, sources: Any, *, detach: bool, as_json: bool) -> None:
    if detach:
        if as_json:
            print_json(job.view)
        then = f"fetch: janus jobs results {job.id} {flags_of(output)}"
        if job.view.sample is not None:
            then = f"when it has ended: janus jobs approve {job.id}"
        note(f"submitted {job.id}; watch: janus jobs watch {job.id}; {then}")
        raise typer.Exit(OK)
    note(f"submitted {job.id}; it goes on if this is interrupted (janus jobs watch {job.id})")
    job.wait(progress=True)
    if job.view.sample is not None:
        job = decide(job, output, sources, as_json=as_json)
    finish(job, output, as_json=as_json)


def _swept(given: list[str]) -> dict[str, list[int | float | str]]:
    """`guidance=3,5,7` as a name and its values. Exits, 2, for what is not of this form."""
    sweep: dict[str, list[int | float | str]] = {}
    for text in given:
        name, is_of_form, values = text.partition("=")
        name = name.replace("-", "_")
        if not is_of_form or not name or name in sweep or not all(values.split(",")):
            raise typer.BadParameter(f"--sweep {text}: write each option once, as guidance=3,5,7")
        sweep[name] = [_number_or_word(value) for value in values.split(",")]
    return sweep


def _number_or_word(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the rest have their defaults in one place, in the domain."""
    return {name: value for name, value in options.items() if value is not None}
