"""How good JanusFlow's drawings are after how many questions to the model: python benchmarks/solvers.py [--prompts 60]

janusflow-tiny draws the same prompts from the same noise by Euler's and by Heun's method with few and many steps.
Writes benchmarks/solvers_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import GeneratedImage, GenerateRequest, load_engine  # noqa: E402
from janus_core.engine.engine import Engine  # noqa: E402
from janus_core.engine.solvers import Solver  # noqa: E402
from janus_core.evaluation.captions import parse  # noqa: E402
from janus_core.evaluation.detector import detect  # noqa: E402
from janus_core.evaluation.evaluate import stream  # noqa: E402
from janus_core.evaluation.partial import matches  # noqa: E402
from janus_core.evaluation.prompts import spread_prompts  # noqa: E402

MODEL = "janusflow-tiny"
WAYS: tuple[tuple[Solver, int], ...] = (
    *(("euler", steps) for steps in (4, 8, 15, 30, 60)),
    *(("heun", steps) for steps in (2, 4, 8, 15, 30)),
)
FINE: tuple[Solver, int] = ("heun", 60)
HEAD = """# JanusFlow's solvers

`python benchmarks/solvers.py --prompts {prompts}`, {date}: {machine}. `{model}`, float32, a drawing of each prompt, the
same noise every time. *Questions*: how often the model is asked, which is what takes the time. *Right*: by
the rules of `janus evaluate`. *Away*: the mean difference of a pixel value, of 255, from Heun's method with 60 steps.

| solver | steps | questions | right | away | ms an image |
|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60)
    options = parser.parse_args()
    engine = load_engine(MODEL, device="cpu", dtype="float32")
    prompts = [prompt for _, prompt in spread_prompts(options.prompts, stream(0, "prompts"))]
    fine, _ = draw(engine, prompts, *FINE)
    machine = f"{cpu_name()}, {os.cpu_count()} cores"
    head = HEAD.format(prompts=options.prompts, date=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine, model=MODEL)
    lines = [head]
    for solver, steps in WAYS:
        drawn, seconds = draw(engine, prompts, solver, steps)
        right = sum(is_right(prompt, image) for prompt, image in zip(prompts, drawn, strict=True)) / len(prompts)
        away = np.mean([difference(one, other) for one, other in zip(drawn, fine, strict=True)])
        questions = steps * (2 if solver == "heun" else 1)
        cost = 1000 * seconds / len(prompts)
        lines.append(f"| {solver} | {steps} | {questions} | {right:.0%} | {away:.1f} | {cost:.0f} |")
        print(lines[-1], flush=True)
    report = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / f"solvers_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md").write_text(report, encoding="utf-8")


def draw(engine: Engine, prompts: list[str], solver: Solver, steps: int) -> tuple[list[GeneratedImage], float]:
    """A drawing of each, and the seconds for all."""
    requests = [GenerateRequest(prompt, seed, solver=solver, steps=steps) for seed, prompt in enumerate(prompts)]
    began = time.monotonic()
    answers = engine.generate(requests)
    return [answer for answer in answers if isinstance(answer, GeneratedImage)], time.monotonic() - began


def is_right(prompt: str, drawn: GeneratedImage) -> bool:
    said, seen = parse(prompt), detect(drawn.image)
    return said is not None and seen is not None and matches(said, seen)


def difference(one: GeneratedImage, other: GeneratedImage) -> float:
    return float(np.abs(np.asarray(one.image, np.float32) - np.asarray(other.image, np.float32)).mean())


if __name__ == "__main__":
    main()
