"""`janus evaluate`: how well a checkpoint on this machine captions and draws."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.output import AsJson, fail

EVALUATION = (sys.executable, "-m", "janus_core.evaluation")


def evaluate(
    model: Annotated[str, typer.Option(help="A registry name or a checkpoint folder.")],
    seed: Annotated[int, typer.Option(help="Of scenes, prompts and drawings.")] = 0,
    scenes: Annotated[int, typer.Option(min=0, help="Fresh scenes to caption, and as many held-out ones.")] = 200,
    prompts: Annotated[int, typer.Option(min=0, help="Prompts to draw, spread over six categories.")] = 60,
    images: Annotated[int, typer.Option(min=0, help="Images of each prompt.")] = 4,
    guidance: Annotated[float | None, typer.Option(help="Of drawing; the engine's own when left out.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of drawing; the engine's own when left out.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of drawing, JanusFlow alone.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    quantize: Annotated[Literal["none", "int8"], typer.Option(help="int8: on the CPU, the language model.")] = "none",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; all when left out.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for evaluation.json and evaluation.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a model by scenes of coloured shapes: how often its captions are right, and its drawings."""
    if find_spec("torch") is None:
        raise fail("evaluation needs the worker's packages: pip install 'janus-batch[worker]'")
    given = {
        "model": model,
        "seed": seed,
        "scenes": scenes,
        "prompts": prompts,
        "images": images,
        "guidance": guidance,
        "temperature": temperature,
        "steps": steps,
        "device": device,
        "dtype": dtype,
        "quantize": quantize,
        "threads": threads,
        "out": out,
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    os.execv(sys.executable, [*EVALUATION, *options, *(["--json"] if as_json else [])])  # noqa: S606
