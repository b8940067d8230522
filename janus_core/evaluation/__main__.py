"""Judge a model: python -m janus_core.evaluation --model MODEL, or `janus evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from janus_core.errors import JanusCoreError
from janus_core.evaluation.evaluate import Evaluation, Plan, evaluate
from janus_core.evaluation.report import report, tabulate
from janus_core.evaluation.sheet import draw_sheet


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 with the reason on standard error. What the figures are makes no difference."""
    options = _parser().parse_args(arguments)
    plan = Plan(
        options.seed,
        options.scenes,
        options.prompts,
        options.images,
        options.guidance,
        options.temperature,
        options.steps,
    )
    try:
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
        evaluation = _run(options, plan)
        figures = report(evaluation)
        if options.out:
            _write(evaluation, figures, options.out)
    except (JanusCoreError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    _show(figures, options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="janus evaluate", description="Judge a model in the sample world.")
    usual = Plan()
    parser.add_argument("--model", required=True, help="a registry name or a checkpoint folder")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of scenes, prompts and drawings")
    parser.add_argument("--scenes", type=_natural, default=usual.scenes, help="captioned, and as many held-out ones")
    parser.add_argument("--prompts", type=_natural, default=usual.prompts, help="drawn, spread over six categories")
    parser.add_argument("--images", type=_natural, default=usual.images, help="of each prompt")
    parser.add_argument("--guidance", type=float, help="of drawing; the engine's own where not given")
    parser.add_argument("--temperature", type=float, help="of drawing; the engine's own where not given")
    parser.add_argument("--steps", type=_natural, help="of drawing, JanusFlow alone")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--quantize", choices=("none", "int8"), default="none", help="int8: the language model")
    parser.add_argument("--threads", type=_natural, help="processor threads; all where not given")
    parser.add_argument("--out", type=Path, help="a folder for evaluation.json and evaluation.png")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _run(options: argparse.Namespace, plan: Plan) -> Evaluation:
    from janus_core import load_engine

    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    engine = load_engine(options.model, device=options.device, dtype=options.dtype, quantize=options.quantize)
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        return evaluate(engine, plan, told)


def _write(evaluation: Evaluation, figures: dict[str, Any], folder: Path) -> None:
    (folder / "evaluation.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw_sheet(evaluation).save(folder / "evaluation.png")


def _show(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=2))  # noqa: T201
        return
    title, headers = f"{figures['model']['name']} in the sample world", ("", "share", "95 % interval", "right / asked")
    rows = tabulate(figures)
    if not sys.stdout.isatty():
        print(*("\t".join(row) for row in (headers, *rows)), sep="\n")  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*headers, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
