"""Train a model: python -m janus_core.training --recipe RECIPE --out FOLDER, or `janus train`."""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from janus_core.errors import DataInvalid, JanusCoreError
from janus_core.registry import resolve, revision_of
from janus_core.training.begun import begin
from janus_core.training.loop import Precision, Settings, Stopped
from janus_core.training.recipes import janus_tiny, janusflow_tiny, sft

_FROM_NOTHING = {"janus-tiny": janus_tiny.main, "janusflow-tiny": janusflow_tiny.main}
RECIPES = (*_FROM_NOTHING, "sft")
_INTERRUPTED = 130  # as shells count it: 128 and the signal's number


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0; 1 with the reason on standard error; 2 for wrong usage."""
    options, own = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = Settings(seed=options.seed, precision=_precision(options.precision))
    try:
        begin(options.out, {"recipe": options.recipe, **_begun_with(settings, own)})
        if own is None:
            checkpoint = _FROM_NOTHING[options.recipe](options.out, settings)
        else:
            checkpoint = sft.main(options.out, settings, own)
    except (JanusCoreError, Stopped, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what was last saved", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
    print(f"The model is in {checkpoint}")  # noqa: T201
    return 0


def _begun_with(settings: Settings, own: sft.Options | None) -> dict[str, Any]:
    """What makes a run another one; what was given to fine-tune by its content, wherever it lies."""
    run = {"seed": settings.seed, "precision": settings.precision}
    if own is None:
        return run
    try:
        with own.data.open("rb") as file:
            data = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataInvalid(f"{own.data} cannot be read: {error}") from error
    given = {name: value for name, value in asdict(own).items() if name not in ("init", "data", "images")}
    return {**run, "init": revision_of(resolve(own.init)), "data": f"sha256:{data[:16]}", **given}


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, sft.Options | None]:
    """The options, and those of sft where it is the recipe."""
    parser = argparse.ArgumentParser(prog="janus train", description="Train a model, or go on where it was stopped.")
    parser.add_argument("--recipe", required=True, choices=RECIPES)
    parser.add_argument("--out", required=True, type=Path, help="takes logs, curves, samples and checkpoint/")
    parser.add_argument("--seed", type=int, default=0, help="of everything; the same seed trains the same model")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of matrix products; auto is bfloat16 where the processor or GPU has it",
    )
    parser.add_argument("--threads", type=_count, help="processor threads; all where not given")
    usual = {field.name: field.default for field in fields(sft.Options)}
    tuning = parser.add_argument_group("of sft alone", argument_default=argparse.SUPPRESS)
    tuning.add_argument("--init", help="a registry name or a checkpoint folder")
    tuning.add_argument("--data", type=Path, help='lines {"id": "a.jpg", "caption": "…"}')
    tuning.add_argument("--images", type=Path, help="where the pictures lie; beside the data where not given")
    tuning.add_argument("--prompt", help=f"what is asked; {usual['prompt']!r} where not given")
    tuning.add_argument("--epochs", type=_positive, help=f"times through the pairs; {usual['epochs']} where not given")
    tuning.add_argument("--batch-size", type=_count, help=f"in pairs; {usual['batch_size']} where not given")
    tuning.add_argument("--learning-rate", type=_positive, help="the published one where not given")
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if name in usual}
    if options.recipe != "sft":
        if given:
            parser.error(f"{_flags(given)}: of --recipe sft alone, not of {options.recipe}")
        return options, None
    absent = [name for name in ("init", "data") if name not in given]
    if absent:
        parser.error(f"--recipe sft needs {_flags(absent)}")
    return options, sft.Options(**given)


def _flags(names: Any) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 1 or more")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _precision(wanted: str) -> Precision:
    if wanted == "auto":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if fast else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


if __name__ == "__main__":
    sys.exit(main())
