"""What fine-tuning on a few hundred captions of another style does to a shipped model.

    python benchmarks/fine_tuning.py [--model janus-tiny] [--pairs 500] [--epochs 24] [--scenes 500]

The new style puts a count first and writes numbers as digits: "3 in all: 2 small blue stars and 1 large red cross on
a white background". Pairs are written as files, `janus train --recipe sft` is run on them as a person would, and the
model before and after is asked about scenes that neither has seen.

Writes benchmarks/fine_tuning_<model>_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import Caption, CaptionRequest, Engine, load_engine  # noqa: E402
from janus_core.evaluation.captions import COUNTS, describe  # noqa: E402
from janus_core.evaluation.evaluate import MAX_NEW_TOKENS, QUESTION  # noqa: E402
from janus_core.evaluation.render import render  # noqa: E402
from janus_core.evaluation.scene import Scene, sample_scene  # noqa: E402
from janus_core.evaluation.scores import f1_of, read_answer  # noqa: E402

DIGITS = {word: str(number) for number, word in COUNTS.items()} | {"an": "1"}
STYLED = re.compile(r"(\d) in all: (.+)")


@dataclass(frozen=True)
class Result:
    """Shares of answers: in the new style, and right in every attribute; the mean F1 of attributes."""

    styled: float
    all_attributes: float
    attributes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="janus-tiny", help="a shipped model, or a checkpoint folder")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=24, help="a new style takes a small model more than the usual 3")
    parser.add_argument("--scenes", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="janus-fine-tuning-") as name:
        data = write_pairs(Path(name) / "pairs", options.pairs)
        janus = str(Path(sys.executable).with_name("janus"))
        given = ["--init", options.model, "--data", str(data), "--out", f"{name}/run", "--epochs", str(options.epochs)]
        began = time.monotonic()
        subprocess.run([janus, "train", "--recipe", "sft", *given], check=True)
        minutes = (time.monotonic() - began) / 60
        before = judge(load_engine(options.model, device="cpu", dtype="float32"), options.scenes)
        after = judge(load_engine(f"{name}/run/checkpoint", device="cpu", dtype="float32"), options.scenes)
    report = write_report(options, before, after, minutes)
    model = Path(options.model).name
    name = f"fine_tuning_{model}_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")
    print(report)


def restyled(scene: Scene) -> str:
    """Its caption in the new style."""
    total = sum(group.count for group in scene.groups)
    counted = [re.sub(r"^(\w+)", lambda found: DIGITS[found[1]], part) for part in _things(describe(scene))]
    return f"{total} in all: {''.join(counted)}"


def _things(caption: str) -> list[str]:
    """The caption cut before each thing's number; the background's article stays as it is."""
    numbers = "|".join(sorted(DIGITS, key=len, reverse=True))
    return re.split(rf"(?<! on )(?=\b(?:{numbers}) )", caption)[1:]


def write_pairs(folder: Path, count: int) -> Path:
    """Pictures and captions.jsonl; returns the latter."""
    folder.mkdir()
    rng = random.Random("fine-tuning: train")
    data = folder / "captions.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for number in range(count):
            scene = sample_scene(rng)
            render(scene, rng).save(folder / f"{number:04}.png")
            file.write(json.dumps({"id": f"{number:04}.png", "caption": restyled(scene)}) + "\n")
    return data


def judge(engine: Engine, count: int) -> Result:
    """As `Result` has it, on scenes of their own."""
    rng = random.Random("fine-tuning: evaluate")
    scenes = [sample_scene(rng) for _ in range(count)]
    pictures = [render(scene, rng, engine.info.image_size) for scene in scenes]
    answers = engine.caption([CaptionRequest(picture, QUESTION, MAX_NEW_TOKENS) for picture in pictures])
    said = [answer.text if isinstance(answer, Caption) else "" for answer in answers]
    plain = [_without_style(text) for text in said]
    f1 = [value for value in f1_of(list(zip(scenes, plain, strict=True))).values() if value is not None]
    return Result(
        styled=sum(map(_is_styled, said)) / count,
        all_attributes=sum(read_answer(text) == scene for text, scene in zip(plain, scenes, strict=True)) / count,
        attributes=statistics.mean(f1),
    )


def _is_styled(text: str) -> bool:
    """Whether the count comes first, every thing has its digit, and they add up."""
    found = STYLED.fullmatch(text.strip())
    numbers = re.findall(r"\b(\d|a|an|two|three|four)\b(?! \w+ background)", found[2]) if found else []
    return found is not None and all(map(str.isdigit, numbers)) and sum(map(int, numbers)) == int(found[1])


def _without_style(text: str) -> str:
    found = STYLED.fullmatch(text.strip())
    return found[2] if found else text


def write_report(options: argparse.Namespace, before: Result, after: Result, minutes: float) -> str:
    rows = [
        f"| {name} | {result.styled:.1%} | {result.all_attributes:.1%} | {result.attributes:.3f} |"
        for name, result in (("before", before), ("after", after))
    ]
    return "\n".join(
        [
            f"# Fine-tuning {Path(options.model).name} on {options.pairs} captions of another style",
            "",
            f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/fine_tuning.py --model {options.model} "
            f"--pairs {options.pairs} --epochs {options.epochs} --scenes {options.scenes}`: {cpu_name()}, "
            f"{os.cpu_count()} cores; training took {minutes:.1f} minutes. {options.scenes} fresh scenes; the caption "
            f'of the first picture would be "{restyled(sample_scene(random.Random("fine-tuning: evaluate")))}".',
            "",
            "| | in the new style | every attribute right | mean F1 of attributes |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
