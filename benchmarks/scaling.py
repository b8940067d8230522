"""How time an item falls with the batch, and grows with the answer: python benchmarks/scaling.py [--keep FOLDER]

Our engine alone, random bfloat16 weights of Janus-Pro-1B's shape, on the CPU. Writes
benchmarks/scaling_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engine import checkpoint  # noqa: E402
from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import load_engine  # noqa: E402
from janus_core.bench.cases import Case, Task  # noqa: E402
from janus_core.bench.inputs import Inputs  # noqa: E402
from janus_core.bench.ours import Ours  # noqa: E402
from janus_core.bench.roofline import Prober, needs  # noqa: E402

BATCHES, STEPS, ROUNDS = (1, 2, 4, 8, 16, 32), 8, 3
LENGTHS, IMAGE_TOKENS = (16, 64, 256, 1024), 576
AT_LENGTHS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="where the checkpoint lies, or is written to and stays")
    options = parser.parse_args()
    with checkpoint(options.keep) as folder:
        report = measure(folder)
    (ROOT / "benchmarks" / f"scaling_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md").write_text(report, encoding="utf-8")
    print(report)


def measure(folder: Path) -> str:
    engine = load_engine(folder, device="cpu")
    inputs, probe = Inputs(engine), Prober(engine.model.dtype, engine.model.device)
    ours = Ours(engine, inputs)

    def step(task: Task, batch: int, prompt_tokens: int) -> tuple[float, float, float]:
        """Milliseconds of a step, milliseconds of a prompt, and the share of the roofline."""
        case = Case(task, batch, prompt_tokens, STEPS, STEPS)
        least = needs(engine, case, inputs.prompt_tokens(case))
        steps, firsts, shares = [], [], []
        for _ in range(ROUNDS):
            limits, timing = probe(), ours.run(case)
            steps.append(1000 * timing.step)
            firsts.append(1000 * timing.first_seconds / batch)
            shares.append(least.step_seconds(limits) / timing.step)
        print(f"{task} {batch}: {steps}, {firsts}", file=sys.stderr, flush=True)
        return statistics.median(steps), statistics.median(firsts), statistics.median(shares)

    lines = [HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", machine=f"{cpu_name()}, {os.cpu_count()} cores")]
    for batch in BATCHES:
        drawn, _, of_drawing = step("generate", batch, 276)
        said, asked, of_saying = step("caption", batch, 0)
        if batch == AT_LENGTHS:
            usual = said, asked
        image = drawn * IMAGE_TOKENS / batch / 1000
        caption = (asked + 64 * said / batch) / 1000
        lines.append(
            f"| {batch} | {drawn:.0f} | {image:.1f} | {of_drawing:.2f} | {said:.0f} | {caption:.2f} | {of_saying:.2f} |"
        )
    said, asked = usual
    lines += ["", BY_LENGTH.format(batch=AT_LENGTHS, asked=asked / 1000)]
    for length in LENGTHS:
        seconds = (asked + length * said / AT_LENGTHS) / 1000
        lines.append(f"| {length} | {seconds:.2f} | {asked / 1000 / seconds:.0%} |")
    return "\n".join(lines) + "\n"


HEAD = """# Time an item, by batch and by length

`python benchmarks/scaling.py`, {date}: {machine}. Our engine alone, random bfloat16 weights of Janus-Pro-1B's shape.
Images: a guided image is two rows; a step behind 276 tokens, 576 steps an image. Captions: prompts of 804 tokens,
answers of 64. Of the roofline: as in the engine's table.

| at a time | images: a step, ms | seconds an image | roofline | captions: a step, ms | seconds a caption | roofline |
|---|---|---|---|---|---|---|"""

BY_LENGTH = """Captions, {batch} at a time, of other lengths; {asked:.2f} s of each are its prompt:

| tokens | seconds a caption | of it the prompt |
|---|---|---|"""


if __name__ == "__main__":
    main()
