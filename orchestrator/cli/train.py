"""`janus train`: the recipes of training, on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.output import fail

TRAINING = (sys.executable, "-m", "janus_core.training")
PACKAGES = ("torch", "accelerate", "matplotlib", "tokenizers")


def train(
    recipe: Annotated[
        Literal["janus-tiny", "janusflow-tiny", "sft"],
        typer.Option(help="janus-tiny or janusflow-tiny: a small model from nothing. sft: fine-tune any on captions."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Takes logs, curves, samples and checkpoint/; goes on with what it has.")
    ],
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"],
        typer.Option(help="Of matrix products; auto is bfloat16 where the processor or GPU has it."),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; all when left out.")] = None,
    init: Annotated[str | None, typer.Option(help="sft: a registry name or a checkpoint folder.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="sft: JSON lines with captions.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="sft: where the pictures lie; beside the data when left out.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="sft: what is asked about a picture; 'Describe this image.' when left out.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="sft: times through the pairs; 3 when left out.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="sft: in pairs; 16 when left out.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="sft: at first, it falls to 0; the published one when left out.")
    ] = None,
) -> None:
    """Train a small model by the three-stage recipe, or fine-tune any on your own pictures and captions."""
    absent = [package for package in PACKAGES if find_spec(package) is None]
    if absent:
        raise fail(f"training needs {', '.join(absent)}: pip install 'janus-batch[train]'")
    given = {
        "recipe": recipe,
        "out": out,
        "seed": seed,
        "precision": precision,
        "threads": threads,
        "init": init,
        "data": data,
        "images": images,
        "prompt": prompt,
        "epochs": epochs,
        "batch-size": batch_size,
        "learning-rate": learning_rate,
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    os.execv(sys.executable, [*TRAINING, *options])  # noqa: S606
