"""janus-tiny: Janus-Pro's recipe on the sample world, from nothing to a checkpoint.

A tokenizer of text, a tokenizer of images, an understanding encoder and a language model come first; the papers take
those ready-made. Then the three stages.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from janus_core.checkpoints.config_json import Drawing
from janus_core.checkpoints.save import save_checkpoint
from janus_core.configs import JanusConfig, VQConfig
from janus_core.models.janus import Janus
from janus_core.processing import chat
from janus_core.training.course import Course
from janus_core.training.initial import initialise
from janus_core.training.loop import Settings
from janus_core.training.objectives import JanusObjective
from janus_core.training.presets import Phase, Ratio
from janus_core.training.recipes import tiny
from janus_core.training.samples import draw_samples
from janus_core.training.seeds import seed_of
from janus_core.training.streams import ANY_PLAIN, Drawn, Pictures
from janus_core.training.vq import VQObjective, start_plain

VQ = Phase("vq", 4000, 8, 2e-3, 50, "cosine", muon_rate=2e-3)
STAGES = (
    Phase("stage1", 150, 32, 1e-3, 20, "constant", 0.0, 1, Ratio(1, 0, 3)),
    Phase("stage2", 7500, 16, 1e-3, 100, "constant", 0.0, 2, Ratio(3, 1, 12)),
    Phase("stage3", 4200, 16, 7e-4, 0, "cosine", 0.0, 3, Ratio(7, 1, 8)),
)
DRAWING = Drawing(guidance=1.5, temperature=0.7)
"""With the family's 5 and 1 hardly a drawing is right; its card has the table."""
CONFIG = JanusConfig(
    llama=tiny.llama(num_layers=6),
    siglip=tiny.TOWER,
    vq=VQConfig(
        num_codes=1024,
        code_size=16,
        base_channels=64,  # two to each of the 32 groups: alone, a channel would lose its level to the norm
        channel_multipliers=(1, 1, 1, 1),
        num_res_blocks=0,  # one in the decoder: in equal time the squared error fell by a third against one more
        z_channels=64,
    ),
    aligner_depth=2,
    gen_aligner_depth=2,
    gen_head_width=192,
)


def main(out: Path, settings: Settings, stages: tuple[Phase, ...] = STAGES, drawn: Drawn = ANY_PLAIN) -> Path:
    """Train to the end, or go on where the last call ended. Returns the checkpoint folder."""
    processing = out / "processing"
    tokenizer = tiny.write_processing(processing, CONFIG, settings.seed, bracketed=True, drawing=DRAWING)
    model = Janus(CONFIG)
    initialise(model, settings.seed)
    start_plain(model.vq)

    def draw(picture: Path) -> None:
        _save(model, out / "latest", processing)
        draw_samples(out / "latest", picture, settings.seed)

    course = Course(out, settings, draw)
    steps, side = VQ.steps, model.config.grid_side
    vq = VQObjective(model.vq, side=side, quantise_from=steps * 2 // 5, revive_until=steps * 3 // 4)
    course.run(VQ, vq, Pictures(tiny.IMAGES, settings.seed, VQ))
    start_from_codebook(model, settings.seed)
    rows = tiny.row_maker(tokenizer, chat.BRACKETED)
    tiny.train_reader(model, course, rows, settings.seed)
    objective = JanusObjective(model, image_id=tokenizer.image_id, pad_id=tokenizer.pad_id)
    tiny.train_stages(objective, stages, course, rows, settings.seed, drawn)
    checkpoint = course.finish(lambda folder: _save(model, folder, processing))
    draw_samples(checkpoint, out / "samples.png", settings.seed)
    return checkpoint


@torch.no_grad()
def start_from_codebook(model: Janus, seed: int) -> None:
    """Codes that look alike are read and foretold alike from the first step on; the papers do not tell their start."""
    torch.manual_seed(seed_of(seed, "codes"))
    directions_KC = torch.nn.functional.normalize(model.vq.codebook, dim=-1)
    model.gen_embed.weight.copy_(directions_KC * directions_KC.shape[1] ** 0.5)
    last = model.gen_head.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    mixed_KH = directions_KC @ torch.randn(directions_KC.shape[1], last.in_features)
    last.weight.copy_(mixed_KH * last.weight.std() / mixed_KH.std())
    torch.nn.init.zeros_(last.bias)


def _save(model: Janus, folder: Path, processing: Path) -> None:
    """The checkpoint as it is shipped: Hugging Face layout, bfloat16."""
    save_checkpoint(copy.deepcopy(model).to(torch.bfloat16), folder, processing_from=processing, layout="hf")
