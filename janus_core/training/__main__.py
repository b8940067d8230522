"""Train a model: python -m janus_core.training --recipe RECIPE --out FOLDER, or `janus train`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from janus_core.errors import JanusCoreError
from janus_core.training.loop import Precision, Settings, Stopped
from janus_core.training.recipes import janus_tiny

RECIPES = {"janus-tiny": janus_tiny.main}


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="janus train", description="Train a model, or go on where it was stopped.")
    parser.add_argument("--recipe", required=True, choices=sorted(RECIPES))
    parser.add_argument("--out", required=True, type=Path, help="takes logs, curves, samples and checkpoint/")
    parser.add_argument("--seed", type=int, default=0, help="of everything; the same seed trains the same model")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of matrix products; auto is bfloat16 where the processor or GPU has it",
    )
    parser.add_argument("--threads", type=int, default=None, help="processor threads; all where not given")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = Settings(seed=options.seed, precision=_precision(options.precision))
    try:
        checkpoint = RECIPES[options.recipe](options.out, settings)
    except (JanusCoreError, Stopped) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"The model is in {checkpoint}")  # noqa: T201
    return 0


def _precision(wanted: str) -> Precision:
    if wanted == "auto":
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
        return "bfloat16" if fast else "float32"
    return "bfloat16" if wanted == "bfloat16" else "float32"


if __name__ == "__main__":
    sys.exit(main())
