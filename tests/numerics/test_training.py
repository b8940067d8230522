"""What is trained, and on what loss."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from janus_core import Engine
from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_config
from janus_core.engine.guidance import without_prompt
from janus_core.models.janus import Janus
from janus_core.training.batches import (
    IGNORED,
    GenerationBatch,
    MixedBatch,
    TextBatch,
    TextRow,
    UnderstandingBatch,
    collate_generation,
    collate_text,
    collate_understanding,
)
from janus_core.training.initial import initialise
from janus_core.training.objectives import JanusObjective
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


def test_a_dropped_prompt_is_drawn_as_inference_draws_without_it() -> None:
    model = build_empty(tiny_config()).to_empty(device="cpu")
    initialise(model, 0)
    objective = JanusObjective(model, image_id=IMAGE_ID, pad_id=PAD_ID)
    num_codes = model.config.num_codes_per_image
    codes = torch.randint(512, (1, num_codes), generator=torch.Generator().manual_seed(1))

    def logits(ids: list[int], *, dropped: bool) -> Tensor:
        pixels = torch.zeros(3, 8, 8).numpy()
        with torch.no_grad():
            return objective.code_logits(collate_generation([ids], [dropped], [pixels]), codes)

    prompt, other, shorter = [1, 2, 3, 4, 9], [1, 5, 6, 7, 9], [1, 2, 3, 9]
    gone = logits(prompt, dropped=True)
    assert torch.equal(gone, logits(other, dropped=True))
    assert torch.equal(gone, logits(without_prompt(prompt, PAD_ID), dropped=False))
    assert not torch.allclose(gone, logits(shorter, dropped=True), atol=1e-4)
    assert not torch.allclose(logits(prompt, dropped=False), logits(other, dropped=False), atol=1e-4)


def test_a_padded_batch_of_all_kinds_is_the_mean_over_the_targets_of_its_rows_alone() -> None:
    model = build_empty(tiny_config()).to_empty(device="cpu")
    initialise(model, 0)
    objective = JanusObjective(model, image_id=IMAGE_ID, pad_id=PAD_ID)
    whole = batch(model)
    assert whole.understanding is not None
    assert whole.text is not None
    assert whole.generation is not None
    alone: list[tuple[int, MixedBatch]] = []
    for n in range(2):
        seen, read, drawn = whole.understanding, whole.text, whole.generation
        for kind, part in (("understanding", seen), ("text", read)):
            learnt = (part.targets[n] != IGNORED).nonzero().flatten()
            end = int(learnt[-1]) + 2
            row = {"ids": part.ids[n : n + 1, :end], "targets": part.targets[n : n + 1, :end]}
            if kind == "understanding":
                alone.append((len(learnt), MixedBatch(UnderstandingBatch(**row, pixels=seen.pixels[n : n + 1]))))
            else:
                alone.append((len(learnt), MixedBatch(text=TextBatch(**row))))
        ids = drawn.ids[n : n + 1, : int(drawn.lengths[n])]
        rest = (tensor[n : n + 1] for tensor in (drawn.lengths, drawn.dropped, drawn.pixels))
        alone.append((model.config.num_codes_per_image, MixedBatch(generation=GenerationBatch(ids, *rest))))
    assert [count for count, _ in alone] == [2, 2, 36, 1, 2, 36]
    with torch.no_grad():
        mean = sum(count * float(objective(row).total) for count, row in alone) / sum(count for count, _ in alone)
        together = objective(whole)
    assert float(together.total) == pytest.approx(mean, rel=1e-5)
    assert together.parts.keys() == {"understanding", "text", "generation"}
