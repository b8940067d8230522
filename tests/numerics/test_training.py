"""What is trained, and on what loss."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from janus_core import Engine
from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_config
from janus_core.models.janus import Janus
from janus_core.training.batches import (
    GenerationBatch,
    MixedBatch,
    TextRow,
    collate_generation,
    collate_text,
    collate_understanding,
)
from janus_core.training.initial import initialise
from janus_core.training.objectives import JanusObjective
from janus_core.training.presets import PUBLISHED, Ratio
from janus_core.training.stages import train_only

from .conftest import expected

IMAGE_ID, PAD_ID = 300, 301


def batch(model: Janus) -> MixedBatch:
    side, patches = model.config.siglip.image_size, model.config.siglip.num_patches
    pixels = [torch.randn(3, side, side).numpy() for _ in range(2)]
    rows = [
        TextRow([1, 2, *[IMAGE_ID] * patches, 3, 4, 5], patches + 3),
        TextRow([1, *[IMAGE_ID] * patches, 6], patches + 1),
    ]
    return MixedBatch(
        collate_understanding(rows, pixels),
        collate_text([TextRow([1, 2, 3], 1), TextRow([1, 4, 5, 6], 2)]),
        collate_generation([[1, 2, 3, 9], [1, 4, 9]], [False, True], pixels),
    )


def test_teacher_forced_loss_is_the_official_one(golden: Engine) -> None:
    known = expected("t2i")
    objective = JanusObjective(golden.model, image_id=golden.tokenizer.image_id, pad_id=golden.tokenizer.pad_id)
    ids = known["prompt_ids"].view(1, -1)
    prompts = GenerationBatch(ids, torch.tensor([ids.shape[1]]), torch.tensor([False]), torch.zeros(1, 3, 64, 64))
    with torch.no_grad():
        logits = objective.code_logits(prompts, known["teacher.codes"])
    assert (logits - known["teacher.logits"]).abs().max() < 1e-5
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), known["teacher.codes"].flatten())
    assert abs(float(loss - known["teacher.ce_mean"])) < 1e-6


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_trains_its_own_parameters_and_no_others(stage: Literal[1, 2, 3]) -> None:
    model = build_empty(tiny_config()).to_empty(device="cpu")
    initialise(model, 0)
    train_only(model, stage)
    JanusObjective(model, image_id=IMAGE_ID, pad_id=PAD_ID)(batch(model)).total.backward()
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    adaptors = {"aligner", "gen_embed", "gen_aligner", "gen_head"}
    assert learning == adaptors | ({"llama", "text_head"} if stage >= 2 else set()) | (
        {"vision"} if stage == 3 else set()
    )
    silent = [name for name, p in model.named_parameters() if name.split(".")[0] in learning and p.grad is None]
    assert silent == []


def test_the_published_mixtures_fill_a_batch() -> None:
    assert Ratio(2, 3, 5).split(512) == (102, 154, 256)
    for phases in PUBLISHED.values():
        assert [phase.stage for phase in phases] == [1, 2, 3]
        assert all(sum(phase.ratio_at(0).split(phase.batch_size)) == phase.batch_size for phase in phases)
