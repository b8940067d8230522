"""Fine-tuning any checkpoint on one's own pictures and captions: the third stage, on understanding data alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.load import load_model
from janus_core.checkpoints.save import save_checkpoint
from janus_core.errors import DataInvalid
from janus_core.models.janus import Janus
from janus_core.processing import chat
from janus_core.processing.images import read_image_settings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.registry import resolve
from janus_core.training.batches import RowMaker
from janus_core.training.course import Course
from janus_core.training.loop import Settings
from janus_core.training.objectives import JanusObjective
from janus_core.training.pairs import CaptionPairs, read_pairs
from janus_core.training.presets import Phase
from janus_core.training.stages import train_only

_PUBLISHED_RATE, _PUBLISHED_WIDTH = 4e-5, 2048


@dataclass(frozen=True)
class Options:
    """init: a model's name or a checkpoint folder. images: where ids lie; None is beside `data`.

    learning_rate: None is the published 4e-5 at width 2048, and more for narrower models in proportion.
    """

    init: str
    data: Path
    images: Path | None
    question: str
    epochs: float
    batch_size: int
    learning_rate: float | None


def main(out: Path, settings: Settings, options: Options) -> Path:
    """Train to the end, or go on where the last call ended. Returns the checkpoint folder, in the layout of `init`."""
    folder = resolve(options.init)
    pairs = read_pairs(options.data, options.images)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(folder, device, torch.float32)
    if not isinstance(model, Janus):
        raise DataInvalid(f"{folder} is a JanusFlow; only Janus and Janus-Pro can be fine-tuned yet")
    _, layout, _ = read_config(folder)
    tokenizer, images = Tokenizer.from_folder(folder), read_image_settings(folder)
    roles = chat.BRACKETED if tokenizer.knows(chat.BRACKETED.user) else chat.PLAIN
    steps = max(1, math.ceil(options.epochs * len(pairs) / options.batch_size))
    rate = options.learning_rate or _PUBLISHED_RATE * _PUBLISHED_WIDTH / model.config.llama.hidden_size
    phase = Phase("sft", steps, options.batch_size, rate, 0, "cosine", 0.0, 3)
    print(f"{len(pairs)} pairs, {steps} steps of {options.batch_size}, learning rate {rate:.2g}", flush=True)  # noqa: T201
    train_only(model, 3)
    objective = JanusObjective(model, image_id=tokenizer.image_id, pad_id=tokenizer.pad_id)
    rows = RowMaker(tokenizer, roles, model.config.siglip.num_patches)
    course = Course(out, settings, lambda picture: None)
    course.run(phase, objective, CaptionPairs(pairs, options.question, rows, images, settings.seed, phase))
    stored = copy.deepcopy(model).to(torch.bfloat16)
    save_checkpoint(stored, out / "checkpoint", processing_from=folder, layout=layout)
    return out / "checkpoint"
