"""janusflow-tiny: JanusFlow's recipe on the sample world, from nothing to a checkpoint with its VAE.

A tokenizer of text, a VAE, an understanding encoder and a language model come first; the paper takes those ready-made.
Then the three stages, with a running mean of the weights, which is what is kept.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from janus_core.checkpoints.save import save_checkpoint
from janus_core.configs import JanusFlowConfig, UViTConfig, VaeConfig
from janus_core.evaluation.render import PLAIN
from janus_core.models.janusflow import JanusFlow
from janus_core.models.vae import Vae, build_vae
from janus_core.processing import chat
from janus_core.training.course import Course
from janus_core.training.flow import FlowObjective
from janus_core.training.initial import initialise
from janus_core.training.loop import Settings
from janus_core.training.presets import EMA_DECAY, Phase, Ratio
from janus_core.training.recipes import tiny
from janus_core.training.samples import draw_samples
from janus_core.training.seeds import seed_of
from janus_core.training.streams import Drawn, Pictures
from janus_core.training.vae import VaeObjective, measure_scale

VAE = Phase("vae", 1200, 8, 2e-3, 50, "cosine", muon_rate=2e-3)
STAGES = (
    Phase("stage1", 150, 32, 1e-3, 20, "constant", 0.0, 1, Ratio(1, 0, 3), ema_decay=EMA_DECAY),
    Phase("stage2", 7500, 16, 1e-3, 100, "constant", 0.0, 2, Ratio(5, 1, 10), ema_decay=EMA_DECAY),
    Phase("stage3", 7000, 16, 7e-4, 0, "cosine", 0.0, 3, Ratio(11, 1, 4), ema_decay=EMA_DECAY),
)
ALIGNED_LAYER = 2
"""Of 6; the published one is the 6th of 24."""
TIME_LOCATION = -0.7
"""Prompts change the velocity up to about t = 0.4, and most below 0.2: with a location of 0, a twelfth of all times.
Measured with latents of 4 channels; with 2 everything is decided a little later. docs/training.md has the figures.
"""
DRAWN = Drawn(
    kinds={"single": 0.15, "several": 0.2, "relation": 0.55, "mixed": 0.1},
    style=replace(PLAIN, lattice=1 / 4),
    is_usual=True,
)
"""Two objects are what is hard to draw; and so is choosing from noise what nobody said."""
CONFIG = JanusFlowConfig(
    llama=tiny.llama(num_layers=6),
    siglip=tiny.TOWER,
    uvit=UViTConfig(
        latent_channels=2,
        width=96,
        read_width=96,
        kernel_size=2,
        stride=2,
        padding=0,
        num_encoder_blocks=2,
        num_decoder_blocks=2,
        num_doublings=1,
        encoder_eps=1e-6,
        decoder_eps=1e-6,
    ),
    vae=VaeConfig(
        latent_channels=2,
        block_channels=(32, 64, 64),
        layers_per_block=1,
        num_norm_groups=8,
        scaling_factor=1.0,  # measured once it is trained
    ),
)


def main(out: Path, settings: Settings, stages: tuple[Phase, ...] = STAGES, drawn: Drawn = DRAWN) -> Path:
    """Train to the end, or go on where the last call ended. Returns the checkpoint folder."""
    processing = out / "processing"
    tokenizer = tiny.write_processing(processing, CONFIG, settings.seed, bracketed=False)
    model, vae = JanusFlow(CONFIG), build_vae(CONFIG.vae, sample_size=tiny.SIDE)
    initialise(model, settings.seed)
    initialise(vae, settings.seed)

    def draw(picture: Path) -> None:
        _save(model, vae, out / "latest", processing)
        draw_samples(out / "latest", picture, settings.seed)

    course = Course(out, settings, draw)
    pictures = Pictures(tiny.IMAGES, settings.seed, VAE)
    course.run(VAE, VaeObjective(vae), pictures)
    vae.eval().requires_grad_(False)
    measure_scale(vae, pictures.batch(VAE.steps, 0, 1))
    rows = tiny.row_maker(tokenizer, chat.PLAIN)
    tiny.train_reader(model, course, rows, settings.seed)
    torch.manual_seed(seed_of(settings.seed, "projector"))
    objective = FlowObjective(
        model,
        vae,
        image_id=tokenizer.image_id,
        pad_id=tokenizer.pad_id,
        aligned_layer=ALIGNED_LAYER,
        time_location=TIME_LOCATION,
    )
    tiny.train_stages(objective, stages, course, rows, settings.seed, drawn)
    checkpoint = course.finish(lambda folder: _save(model, vae, folder, processing))
    draw_samples(checkpoint, out / "samples.png", settings.seed)
    return checkpoint


def _save(model: JanusFlow, vae: Vae, folder: Path, processing: Path) -> None:
    """The checkpoint as it is shipped: official layout, bfloat16, its VAE beside it."""
    stored, stored_vae = copy.deepcopy(model).to(torch.bfloat16), copy.deepcopy(vae).to(torch.bfloat16)
    save_checkpoint(stored, folder, vae=stored_vae, processing_from=processing)
