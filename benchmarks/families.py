"""Codes one after the other against flow, at equal training time: the two small recipes beside each other.

    python benchmarks/families.py --janus RUN --janusflow RUN [--minutes 15] [--seeds 3]

Each RUN is the folder of a finished `janus train` of its recipe. What the papers take ready-made is copied from it; the
three stages are trained anew, shortened in proportion, to as many steps as the given minutes hold on one core. Both
families train at the same time, one core each, so that neither has the machine for itself.

Writes benchmarks/families_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import load_engine  # noqa: E402
from janus_core.evaluation.evaluate import Plan, evaluate  # noqa: E402
from janus_core.evaluation.prompts import CATEGORIES  # noqa: E402
from janus_core.evaluation.scores import Share, mean_of  # noqa: E402
from janus_core.processing.tokenizer import Tokenizer  # noqa: E402
from janus_core.training.loop import Settings, read_log  # noqa: E402
from janus_core.training.presets import Phase  # noqa: E402
from janus_core.training.recipes import janus_tiny, janusflow_tiny, tiny  # noqa: E402

RECIPES = {"janus-tiny": janus_tiny, "janusflow-tiny": janusflow_tiny}
PLAN = Plan(scenes=500, prompts=120, images=2)
TRIAL_STEPS = 60


@dataclass(frozen=True)
class Result:
    """minutes: of the three stages. Shares of answers that are right: captions, held-out ones, the mean of drawings."""

    recipe: str
    seed: int
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
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    parts = {"janus-tiny": options.janus, "janusflow-tiny": options.janusflow}
    runs = [(name, parts[name], 1 + seed, options.minutes) for seed in range(options.seeds) for name in RECIPES]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(RECIPES), mp_context=fresh, max_tasks_per_child=1) as pool:
        results = list(pool.map(_run, runs))
    report = write_report(results, options.minutes)
    name = f"families_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")
    print(report)


def _run(options: tuple[str, Path, int, float]) -> Result:
    name, parts, seed, minutes = options
    torch.set_num_threads(1)
    recipe = RECIPES[name]
    stages: tuple[Phase, ...] = recipe.STAGES
    with tempfile.TemporaryDirectory(prefix="janus-families-") as folder:
        trial = train(recipe, shorten(stages, TRIAL_STEPS), parts, seed, Path(folder) / "trial")
        steps = round(TRIAL_STEPS * 60 * minutes / seconds_of(trial, stages))
        run = train(recipe, shorten(stages, steps), parts, seed, Path(folder) / "run")
        engine = load_engine(run / "checkpoint", device="cpu", dtype="float32")
        done = evaluate(engine, replace(PLAN, seed=seed))
        taken = seconds_of(run, stages) / 60
    drawn = [Share.of(each.is_right for each in done.drawn if each.category == category) for category in CATEGORIES]
    read = [sum(each.is_right for each in answers) / PLAN.scenes for answers in (done.seen, done.held_out)]
    result = Result(name, seed, steps, taken, read[0], read[1], mean_of(drawn) or 0.0)
    print(result, flush=True)
    return result


def shorten(stages: tuple[Phase, ...], steps: int) -> tuple[Phase, ...]:
    """The same stages with this many steps together."""
    share = steps / sum(phase.steps for phase in stages)
    return tuple(replace(phase, steps=max(1, round(share * phase.steps))) for phase in stages)


def train(recipe: ModuleType, stages: tuple[Phase, ...], parts: Path, seed: int, run: Path) -> Path:
    """Other stages of the recipe, behind the parts of a finished run, vocabulary included. Returns the run's folder."""
    names = {phase.name for phase in stages} | {"checkpoint", "latest"}
    shutil.copytree(parts, run, ignore=lambda _, found: names & set(found))
    usual = recipe.STAGES, tiny.write_processing
    recipe.STAGES, tiny.write_processing = stages, lambda folder, *_, **__: Tokenizer.from_folder(folder)  # type: ignore[attr-defined]
    try:
        recipe.main(run, Settings(seed, "bfloat16", save_every_seconds=3600))
    finally:
        recipe.STAGES, tiny.write_processing = usual  # type: ignore[attr-defined]
    return run


def seconds_of(run: Path, stages: tuple[Phase, ...]) -> float:
    return sum(float(read_log(run / phase.name / "log.jsonl")[-1]["seconds"]) for phase in stages)


def write_report(results: Sequence[Result], minutes: float) -> str:
    lines = [
        "# Codes one after the other, or flow",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/families.py --janus RUN --janusflow RUN "
        f"--minutes {minutes:g} --seeds {len(results) // len(RECIPES)}`: {cpu_name()}, {os.cpu_count()} cores, one for "
        f"each of two runs at a time. {PLAN.scenes} scenes, {PLAN.scenes} scenes with held-out combinations, "
        f"{PLAN.prompts} prompts with {PLAN.images} images; shares of answers that are right. A seed changes adaptors, "
        "data and questions.",
        "",
        "| recipe | seed | steps | minutes | captions | of held-out combinations | drawings |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.recipe}` | {each.seed} | {each.steps} | {each.minutes:.1f} | {each.captions:.3f} "
        f"| {each.held_out:.3f} | {each.drawings:.3f} |"
        for each in results
    ]
    for recipe in RECIPES:
        mine = [each for each in results if each.recipe == recipe]
        means = [statistics.mean(getattr(each, name) for each in mine) for name in ("captions", "held_out", "drawings")]
        lines.append(f"| **`{recipe}`** | mean | | | " + " | ".join(f"**{mean:.3f}**" for mean in means) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
