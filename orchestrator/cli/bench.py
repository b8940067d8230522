"""`janus bench`: how fast a checkpoint runs on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.output import AsJson, fail

BENCH = (sys.executable, "-m", "janus_core.bench")

app = typer.Typer(no_args_is_help=True, help="Measure on this machine.")


@app.callback()
def bench() -> None:
    """Measure on this machine."""


@app.command()
def engine(
    model: Annotated[Path | None, typer.Option(help="A checkpoint folder in the Hugging Face layout.")] = None,
    shape: Annotated[
        Literal["tiny", "narrow", "tiny-flow", "janus-pro-1b", "janus-pro-7b", "janusflow-1.3b"] | None,
        typer.Option(help="Random weights instead, in a temporary folder; narrow: 24 layers of width 64."),
    ] = None,
    task: Annotated[
        Literal["caption", "generate", "mixed", "encode", "decode"],
        typer.Option(help="What is asked; mixed: captions of 8 to 256 tokens; encode, decode: single parts."),
    ] = "generate",
    batch: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(min=16, help="Of a drawing's prompt.")] = 276,
    tokens: Annotated[int, typer.Option(min=2, help="Of every answer; of JanusFlow steps.")] = 32,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer, for what is done in an hour; all codes of an image.")
    ] = None,
    peer: Annotated[
        Literal["transformers", "official-style", "all", "none"],
        typer.Option(help="Who runs beside us, round by round."),
    ] = "all",
    rounds: Annotated[int, typer.Option(min=1, help="Measured, after one to warm up.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    kernels: Annotated[
        Literal["auto", "plain", "packed", "compiled"], typer.Option(help="How our steps are computed, on the CPU.")
    ] = "auto",
    quantize: Annotated[Literal["none", "int8"], typer.Option(help="int8: on the CPU, the language model.")] = "none",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; all when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the engine beside transformers and the published loop: same weights, same inputs, in turns."""
    if find_spec("torch") is None:
        raise fail("measuring needs the worker's packages: pip install 'janus-batch[worker]'")
    given = {
        "model": model,
        "shape": shape,
        "task": task,
        "batch": batch,
        "prompt-tokens": prompt_tokens,
        "tokens": tokens,
        "answer-tokens": answer_tokens,
        "peer": peer,
        "rounds": rounds,
        "device": device,
        "dtype": dtype,
        "kernels": kernels,
        "quantize": quantize,
        "threads": threads,
    }
    options = [f"--{name}={value}" for name, value in given.items() if value is not None]
    os.execv(sys.executable, [*BENCH, *options, *(["--json"] if as_json else [])])  # noqa: S606
