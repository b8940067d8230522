"""What the recipe of janus-tiny does between its phases."""

from __future__ import annotations

import torch

from janus_core.models.janus import Janus
from janus_core.training.initial import initialise
from janus_core.training.recipes.janus_tiny import CONFIG, start_from_codebook


def started(seed: int) -> Janus:
    """Codes 0 and 1 look alike, though one is longer; code 2 is their opposite."""
    model = Janus(CONFIG)
    initialise(model, 0)
    with torch.no_grad():
        model.vq.codebook[1] = 3 * model.vq.codebook[0]
        model.vq.codebook[2] = -model.vq.codebook[0]
    start_from_codebook(model, seed)
    return model


def test_codes_that_look_alike_start_alike_in_and_out() -> None:
    model = started(0)
    torch.testing.assert_close(model.gen_embed.weight[0], model.gen_embed.weight[1])
    logits = model.image_logits(torch.randn(5, CONFIG.llama.hidden_size))
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    torch.testing.assert_close(logits[:, 0], -logits[:, 2])
    assert logits.std() > 0.01


def test_the_start_follows_from_the_seed_and_keeps_the_usual_strength() -> None:
    usual = Janus(CONFIG)
    initialise(usual, 0)
    weights = [started(seed).gen_head.layers[-1].weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.testing.assert_close(weights[0].std(), usual.gen_head.layers[-1].weight.std())
