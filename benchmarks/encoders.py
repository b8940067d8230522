"""One vision encoder for both tasks against one for each: the Janus papers' claim, in small.

    python benchmarks/encoders.py --parts RUN

RUN is the folder of a finished `janus train --recipe janus-tiny`. Its image tokenizer, vision tower and language model,
which the papers take ready-made, are what every run here begins with; then the three stages are trained anew.

decoupled   captions read the vision tower through its adaptor; drawings are the image tokenizer's codes
shared      captions read the image tokenizer's codes too, by the embedding and adaptor that drawing trains

Decoder, steps and batches are the same in both. Pictures are plain, as those that the tokenizer was trained on. A seed
changes first weights of adaptors, data and questions. Writes benchmarks/encoders_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core import Caption, CaptionRequest, Engine, load_engine  # noqa: E402
from janus_core.checkpoints.save import save_checkpoint  # noqa: E402
from janus_core.evaluation.evaluate import MAX_NEW_TOKENS, QUESTION, Plan, evaluate, stream  # noqa: E402
from janus_core.evaluation.prompts import CATEGORIES  # noqa: E402
from janus_core.evaluation.render import PLAIN, Style, render  # noqa: E402
from janus_core.evaluation.scene import Scene, sample_scene  # noqa: E402
from janus_core.evaluation.scores import Share, mean_of, read_answer  # noqa: E402
from janus_core.models.janus import Janus  # noqa: E402
from janus_core.processing import chat  # noqa: E402
from janus_core.processing.tokenizer import Tokenizer  # noqa: E402
from janus_core.training.initial import initialise  # noqa: E402
from janus_core.training.loop import Settings, train  # noqa: E402
from janus_core.training.objectives import JanusObjective  # noqa: E402
from janus_core.training.recipes import tiny  # noqa: E402
from janus_core.training.recipes.janus_tiny import CONFIG, STAGES, start_from_codebook  # noqa: E402
from janus_core.training.stages import train_only  # noqa: E402
from janus_core.training.streams import Mixture  # noqa: E402

VARIANTS = ("decoupled", "shared")
SCENES, PROMPTS, IMAGES = 500, 120, 2
PARTS = {"vq": ("vq",), "siglip": ("vision",), "language": ("llama", "text_head")}


@dataclass(frozen=True)
class Result:
    """Shares of answers that are right: captions of fresh scenes and of held-out combinations; the mean of drawings."""

    variant: str
    seed: int
    minutes: float
    captions: float
    held_out: float
    drawings: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True, help="the folder of a finished run of janus-tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000, help="of all three stages together")
    options = parser.parse_args()
    runs = [(options.parts, variant, 1 + seed, options.steps) for seed in range(options.seeds) for variant in VARIANTS]
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=fresh, max_tasks_per_child=1) as pool:
        results = list(pool.map(_run, runs))
    report = write_report(results, options.steps)
    name = f"encoders_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")
    print(report)


def _run(options: tuple[Path, str, int, int]) -> Result:
    parts, variant, seed, steps = options
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="janus-encoders-") as name:
        began = time.monotonic()
        model = train_stages(parts, variant, seed, steps, Path(name))
        minutes = (time.monotonic() - began) / 60
        engine = serve(model, variant, parts, Path(name))
        result = Result(variant, seed, minutes, *judge(engine, seed))
    print(result, flush=True)
    return result


def train_stages(parts: Path, variant: str, seed: int, steps: int, folder: Path) -> Janus:
    """The recipe's stages, shortened in proportion."""
    model = Janus(CONFIG)
    initialise(model, seed)
    for phase, names in PARTS.items():
        fill(model, load_file(parts / phase / "done.safetensors"), names)
    start_from_codebook(model, seed)
    if variant == "shared":
        share_encoder(model)
    tokenizer = Tokenizer.from_folder(parts / "processing")
    rows = tiny.row_maker(tokenizer, chat.BRACKETED)
    objective = JanusObjective(model, image_id=tokenizer.image_id, pad_id=tokenizer.pad_id)
    share = steps / sum(phase.steps for phase in STAGES)
    for stage in STAGES:
        phase = replace(stage, steps=round(share * stage.steps))
        assert phase.stage is not None
        train_only(model, phase.stage)
        settings = Settings(seed, "bfloat16", log_every=100)
        train(objective, PlainMixture(tiny.IMAGES, seed, phase, rows), phase, folder / phase.name, settings)
    return model


@torch.no_grad()
def fill(model: nn.Module, tensors: dict[str, Tensor], names: tuple[str, ...]) -> None:
    """Copy the parameters below these names."""
    parameters = dict(model.named_parameters())
    for name in [name for name in tensors if name.split(".")[0] in names]:
        parameters[name].copy_(tensors[name])


def share_encoder(model: Janus) -> None:
    """Let captions read what drawing writes."""

    def embed_images(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            codes = model.vq.encode(pixels.float())
        return model.embed_codes(codes)

    model.embed_images = embed_images  # type: ignore[method-assign]


class PlainMixture(Mixture):
    """The stages' data, all of its pictures plain."""

    def picture(self, scene: Scene, rng: random.Random, style: Style = PLAIN) -> NDArray[np.float32]:
        return super().picture(scene, rng, PLAIN)


def serve(model: Janus, variant: str, parts: Path, folder: Path) -> Engine:
    save_checkpoint(model, folder / "checkpoint", processing_from=parts / "processing", layout="hf")
    engine = load_engine(folder / "checkpoint", device="cpu", dtype="float32")
    if variant == "shared":
        served: Any = engine.model
        share_encoder(served)
    return engine


def judge(engine: Engine, seed: int) -> tuple[float, float, float]:
    """As `Result` has them."""
    drawn = evaluate(engine, Plan(seed, scenes=0, prompts=PROMPTS, images=IMAGES)).drawn
    shares = [Share.of(each.is_right for each in drawn if each.category == category) for category in CATEGORIES]
    return caption(engine, seed, False), caption(engine, seed, True), mean_of(shares) or 0.0


def caption(engine: Engine, seed: int, held_out: bool) -> float:
    streams = [stream(seed, "encoders", held_out, number) for number in range(SCENES)]
    scenes = [sample_scene(rng, held_out=held_out) for rng in streams]
    pictures = [render(scene, rng, style=PLAIN) for scene, rng in zip(scenes, streams, strict=True)]
    answers = engine.caption([CaptionRequest(picture, QUESTION, MAX_NEW_TOKENS) for picture in pictures])
    right = [
        isinstance(answer, Caption) and read_answer(answer.text) == scene
        for answer, scene in zip(answers, scenes, strict=True)
    ]
    return sum(right) / SCENES


def write_report(results: Sequence[Result], steps: int) -> str:
    lines = [
        "# One vision encoder, or one for each task",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/encoders.py --parts RUN --seeds "
        f"{len(results) // len(VARIANTS)} --steps {steps}`: {cpu_name()}, one core for each run, {os.cpu_count()} runs "
        f"at a time. {SCENES} scenes, {SCENES} scenes with held-out combinations, {PROMPTS} prompts with {IMAGES} "
        "images; shares of answers that are right.",
        "",
        "| encoder | seed | captions | of held-out combinations | drawings | minutes |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.variant} | {each.seed} | {each.captions:.3f} | {each.held_out:.3f} | {each.drawings:.3f} "
        f"| {each.minutes:.1f} |"
        for each in results
    ]
    for variant in VARIANTS:
        mine = [each for each in results if each.variant == variant]
        means = [statistics.mean(getattr(each, name) for each in mine) for name in ("captions", "held_out", "drawings")]
        lines.append(f"| **{variant}** | mean | " + " | ".join(f"**{mean:.3f}**" for mean in means) + " | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
