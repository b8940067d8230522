"""What both small models share: sizes, the text tokenizer, the tower, and the language model's first steps."""

from __future__ import annotations

from pathlib import Path

import torch

from janus_core.checkpoints.config_json import USUAL, Drawing
from janus_core.checkpoints.save import write_description
from janus_core.configs import LlamaConfig, ModelConfig, SiglipConfig
from janus_core.models.reader import Reader
from janus_core.processing.chat import Roles
from janus_core.processing.images import ImageSettings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training.batches import RowMaker
from janus_core.training.course import Course
from janus_core.training.objectives import ReaderObjective, TextObjective
from janus_core.training.presets import Phase
from janus_core.training.seeds import seed_of
from janus_core.training.siglip import SiglipObjective, start_with_places
from janus_core.training.stages import train_only
from janus_core.training.streams import LOOKS, Drawn, Mixture, Pairs, Sentences, corpus
from janus_core.training.vocabulary import write_vocabulary

SIDE = 64  # pixels
VOCABULARY = 512
HALF = (0.5, 0.5, 0.5)
IMAGES = ImageSettings(SIDE, 14, HALF, HALF, 1 / 255, True)

TOWER = SiglipConfig(image_size=SIDE, patch_size=8, width=128, num_layers=4, num_heads=4, mlp_width=512)

SIGLIP = Phase("siglip", 4000, 32, 1e-3, 100, "cosine", muon_rate=4e-3)
LANGUAGE = Phase("language", 800, 64, 2e-3, 50, "cosine", muon_rate=4e-3)


def llama(num_layers: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=192,
        intermediate_size=512,
        num_layers=num_layers,
        num_heads=3,
        num_kv_heads=3,
        head_size=64,
        vocab_size=VOCABULARY,
        max_positions=1024,
        rope_theta=10000.0,
        norm_eps=1e-6,
    )


def write_processing(
    folder: Path,
    config: ModelConfig,
    seed: int,
    *,
    bracketed: bool,
    drawing: Drawing = USUAL,
) -> Tokenizer:
    """Write all of a checkpoint but its weights. drawing: the model's own way, if not its family's."""
    write_vocabulary(folder, corpus(seed, 4000), VOCABULARY, bracketed=bracketed)
    write_description(folder, config, IMAGES, "hf" if bracketed else "official", torch.bfloat16, drawing)
    return Tokenizer.from_folder(folder)


def train_reader(model: Reader, course: Course, rows: RowMaker, seed: int) -> None:
    """The tower and the language model, which the papers take ready-made."""
    torch.manual_seed(seed_of(seed, SIGLIP.name))
    start_with_places(model.vision)
    grid_side = SIDE // TOWER.patch_size
    tower = SiglipObjective(model.vision, VOCABULARY, [len(names) for names in LOOKS])
    course.run(SIGLIP, tower, Pairs(IMAGES, seed, SIGLIP, rows, grid_side))
    sentences = Sentences(IMAGES, seed, LANGUAGE, rows, grid_side)
    course.run(LANGUAGE, TextObjective(model.llama, model.text_head), sentences)


def train_stages(
    objective: ReaderObjective,
    stages: tuple[Phase, ...],
    course: Course,
    rows: RowMaker,
    seed: int,
    drawn: Drawn,
) -> None:
    for phase in stages:
        assert phase.stage is not None
        train_only(objective.model, phase.stage)
        course.run(phase, objective, Mixture(IMAGES, seed, phase, rows, drawn), with_samples=True)


def row_maker(tokenizer: Tokenizer, roles: Roles) -> RowMaker:
    return RowMaker(tokenizer, roles, TOWER.num_patches)
