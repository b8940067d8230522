"""Codes one after the other against flow, at equal training time: the two small recipes beside each other.

    python benchmarks/families.py --janus RUN --janusflow RUN [--minutes 15]

Each RUN is the folder of a finished `janus train` of its recipe, with seed 0. What the papers take ready-made is copied
from it; the three stages are trained anew, shortened in proportion, to as many steps as the given minutes hold. Both
draw what janusflow-tiny's recipe draws, and train at the same time, one core each.

Writes benchmarks/families_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import load_engine  # noqa: E402
from janus_core.evaluation.evaluate import Plan, evaluate  # noqa: E402
from janus_core.evaluation.prompts import CATEGORIES  # noqa: E402
from janus_core.evaluation.scores import Share, mean_of  # noqa: E402
from janus_core.training.loop import Settings, read_log  # noqa: E402
from janus_core.training.recipes import janus_tiny, janusflow_tiny  # noqa: E402

RECIPES = {"janus-tiny": janus_tiny, "janusflow-tiny": janusflow_tiny}
PLAN = Plan(seed=1, scenes=500, prompts=300, images=2)
SETTINGS = Settings(seed=0, precision="bfloat16", save_every_seconds=3600)
TRIAL_STEPS = 60


@dataclass(frozen=True)
class Result:
    """minutes: of the three stages. Shares of answers that are right: captions, held-out ones, the mean of drawings."""

    recipe: str
    steps: int
    minutes: float
    captions: float
    held_out: float
    drawings: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--janus", type=Path, required=True, help="the folder of a finished run of janus-tiny")
    parser.add_argument("--janusflow", type=Path, required=True, help="the folder of a finished run of janusflow-tiny")
    parser.add_argument("--minutes", type=float, default=15.0)
    options = parser.parse_args()
    runs = [("janus-tiny", options.janus, options.minutes), ("janusflow-tiny", options.janusflow, options.minutes)]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(runs), mp_context=fresh) as pool:
        report = write_report(list(pool.map(_run, runs)), options.minutes)
    name = f"families_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")
    print(report)


def _run(options: tuple[str, Path, float]) -> Result:
    name, parts, minutes = options
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="janus-families-") as folder:
        _, trial_seconds = train(name, TRIAL_STEPS, parts, Path(folder) / "trial")
        steps = round(TRIAL_STEPS * 60 * minutes / trial_seconds)
        checkpoint, seconds = train(name, steps, parts, Path(folder) / "run")
        done = evaluate(load_engine(checkpoint, device="cpu", dtype="float32"), PLAN)
    drawn = [Share.of(each.is_right for each in done.drawn if each.category == category) for category in CATEGORIES]
    read = [sum(each.is_right for each in answers) / PLAN.scenes for answers in (done.seen, done.held_out)]
    return Result(name, steps, seconds / 60, read[0], read[1], mean_of(drawn) or 0.0)


def train(name: str, steps: int, parts: Path, run: Path) -> tuple[Path, float]:
    """The recipe with so many steps of stages, behind the parts of a finished run; the checkpoint, and the seconds."""
    recipe = RECIPES[name]
    share = steps / sum(phase.steps for phase in recipe.STAGES)
    stages = tuple(replace(phase, steps=max(1, round(share * phase.steps))) for phase in recipe.STAGES)
    left_out = {phase.name for phase in stages} | {"checkpoint", "latest"}
    shutil.copytree(parts, run, ignore=lambda _, found: left_out & set(found))
    checkpoint = recipe.main(run, SETTINGS, stages, janusflow_tiny.DRAWN)
    return checkpoint, sum(float(read_log(run / phase.name / "log.jsonl")[-1]["seconds"]) for phase in stages)


def write_report(results: Sequence[Result], minutes: float) -> str:
    lines = [
        "# Codes one after the other, or flow",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/families.py --janus RUN --janusflow RUN "
        f"--minutes {minutes:g}`: {cpu_name()}, {os.cpu_count()} cores, one for each run, both at a time. "
        f"{PLAN.scenes} scenes, {PLAN.scenes} scenes with held-out combinations, {PLAN.prompts} prompts with "
        f"{PLAN.images} images; shares of answers that are right. Both draw as janusflow-tiny's recipe. One seed.",
        "",
        "| recipe | steps | minutes | captions | of held-out combinations | drawings |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.recipe}` | {each.steps} | {each.minutes:.1f} | {each.captions:.3f} | {each.held_out:.3f} "
        f"| {each.drawings:.3f} |"
        for each in results
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
