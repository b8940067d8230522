"""Fine-tuning any checkpoint on one's own pictures and captions: the third stage, on understanding data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.save import save_checkpoint
from janus_core.engine.engine import Engine, load_engine
from janus_core.errors import DataInvalid
from janus_core.models.reader import Reader
from janus_core.processing import chat
from janus_core.registry import resolve
from janus_core.training.batches import MixedBatch, RowMaker
from janus_core.training.course import Course
from janus_core.training.loop import Settings
from janus_core.training.losses import CrossEntropy, Losses
from janus_core.training.objectives import ReaderObjective
from janus_core.training.pairs import CaptionPairs, read_pairs
from janus_core.training.presets import PUBLISHED, Phase
from janus_core.training.stages import train_only
from janus_core.training.streams import QUESTIONS

_USUAL_RATE, _USUAL_WIDTH = 4e-5, 2048  # Janus-Pro-1B's
_PARAMETERS_A_SECOND = 1.5e6
"""So many are trained for each second between two saves: writing them, 12 bytes each, is then a small part of it."""


@dataclass(frozen=True)
class Options:
    """init: a registry name or a checkpoint folder. images: where pictures lie; None is beside `data`.

    prompt: what is asked about every picture. batch_size: in pairs.
    learning_rate: None is the published one of the third stage; of other models 4e-5, and in proportion more for those
    narrower than 2048.
    """

    init: str
    data: Path
    images: Path | None = None
    prompt: str = QUESTIONS[0]
    epochs: float = 3.0
    batch_size: int = 16
    learning_rate: float | None = None


class ReadingObjective(ReaderObjective):
    """Answers about pictures alone, of any Janus."""

    def forward(self, batch: MixedBatch) -> Losses:
        entropy = CrossEntropy()
        self.read(batch, entropy)
        return entropy.mean()


def main(out: Path, settings: Settings, options: Options) -> Path:
    """Train to the end, or go on where the last call ended.

    Returns the checkpoint folder: in layout and dtype as `init`, the weights that draw unchanged.
    """
    pairs = read_pairs(options.data, options.images)
    folder = resolve(options.init)
    engine = load_engine(options.init, device="cpu")
    model, stored_as = engine.model, engine.model.dtype
    rows = RowMaker(engine.tokenizer, engine.roles, model.config.siglip.num_patches)
    _check_prompt(options.prompt, rows, engine.info.max_positions)
    steps = math.ceil(options.epochs * len(pairs) / options.batch_size)
    rate = options.learning_rate or _usual_rate(engine)
    phase = Phase("sft", steps, options.batch_size, rate, 0, "cosine", 0.0, 3)
    print(f"{len(pairs)} pairs, {steps} steps of {options.batch_size}, learning rate {rate:.2g}", flush=True)  # noqa: T201
    train_only_reading(model.float())
    settings = replace(settings, save_every_seconds=max(settings.save_every_seconds, _seconds_between_saves(model)))
    stream = CaptionPairs(
        pairs, options.prompt, rows, engine.images, settings.seed, phase, max_tokens=engine.info.max_positions
    )
    course = Course(out, settings, draw=lambda picture: None)
    course.run(phase, ReadingObjective(model, image_id=engine.tokenizer.image_id), stream)
    _, layout, _ = read_config(folder)
    model.to(stored_as)
    return course.finish(lambda place: save_checkpoint(model, place, processing_from=folder, layout=layout))


def train_only_reading(model: Reader) -> None:
    """What the third stage trains, but for what draws, which no answer reaches."""
    train_only(model, 3)
    for name, parameter in model.named_parameters():
        if name.startswith("gen_"):
            parameter.requires_grad_(False)


def _seconds_between_saves(model: Reader) -> float:
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / _PARAMETERS_A_SECOND


def _usual_rate(engine: Engine) -> float:
    if engine.info.name in PUBLISHED:
        return PUBLISHED[engine.info.name][-1].learning_rate
    return _USUAL_RATE * max(1.0, _USUAL_WIDTH / engine.model.config.llama.hidden_size)


def _check_prompt(prompt: str, rows: RowMaker, max_positions: int) -> None:
    if prompt.count(chat.IMAGE) > 1:
        raise DataInvalid(f"the prompt has room for {prompt.count(chat.IMAGE)} pictures; every pair has one")
    length = rows.understanding(prompt, "").first_target
    if length >= max_positions:
        raise DataInvalid(f"the prompt is {length} tokens long and {max_positions - 1} fit. Shorten it.")
