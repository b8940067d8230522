"""`janus roundtrip`: pictures to captions to pictures, side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.connection import connect_for_work
from orchestrator.cli.output import SOME_FAILED, AsJson, note, show, told_errors


def roundtrip(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Pictures and folders of them.")],
    out: Annotated[Path, typer.Option(help="A folder for captions, drawn pictures, index.html and side-by-side.jpg.")],
    model: Annotated[str | None, typer.Option(help="The model that captions and draws.")] = None,
    caption_model: Annotated[str | None, typer.Option(help="The one that captions, where two are used.")] = None,
    generate_model: Annotated[str | None, typer.Option(help="The one that draws, where two are used.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to ask about each picture.")] = None,
    seed: Annotated[int, typer.Option(help="Of both jobs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Caption pictures, draw their captions, and put both side by side: what a model sees, and what it makes of it.

    Exit 3 where a picture has no pair.
    """
    with told_errors():
        captions = connect_for_work(caption_model or model)
        drawings = connect_for_work(generate_model or model) if generate_model else captions
        made = drawings.client.roundtrip(
            sources,
            out,
            caption_model=captions.model,
            generate_model=drawings.model,
            prompt=prompt,
            seed=seed,
            progress=True,
        )
    of = f"of {made.caption_job} and {made.generate_job}"
    told = f"{made.num_pairs} pairs of {made.num_items} pictures, {of} -> {made.folder / 'index.html'}"
    record = asdict(made) | {"folder": str(made.folder)}
    show(record, as_json=as_json, otherwise=lambda: note(told))
    if made.num_pairs < made.num_items:
        note(f"why some have none: janus jobs failures {made.caption_job}; janus jobs failures {made.generate_job}")
        raise typer.Exit(SOME_FAILED)
