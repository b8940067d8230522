"""JanusFlow's loss against the same written out, one picture at a time; and what it trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_flow_config
from janus_core.engine.batcher import next_block
from janus_core.engine.cache import KVCache
from janus_core.engine.prompts import PromptBook
from janus_core.models.vae import build_vae
from janus_core.training.batches import (
    GenerationBatch,
    MixedBatch,
    TextRow,
    collate_generation,
    collate_text,
    collate_understanding,
)
from janus_core.training.flow import FlowObjective
from janus_core.training.initial import initialise
from janus_core.training.stages import train_only

IMAGE_ID, PAD_ID = 300, 301
ALIGNED_LAYER = 2
ADAPTORS = {"aligner", "image_start", "gen_encoder", "gen_encoder_aligner"}
ADAPTORS |= {"gen_decoder_norm", "gen_decoder_aligner", "gen_decoder"}
TRAINED = {1: ADAPTORS, 2: ADAPTORS | {"llama", "text_head"}, 3: ADAPTORS | {"llama", "text_head", "vision"}}


@pytest.fixture
def objective() -> FlowObjective:
    return build(time_location=0.0)


def build(time_location: float) -> FlowObjective:
    tiny = tiny_flow_config()
    config = replace(tiny, siglip=replace(tiny.siglip, patch_size=8))  # as many patches as latent tokens
    model, vae = build_empty(config).to_empty(device="cpu"), build_vae(config.vae, sample_size=64)
    initialise(model, 0)
    initialise(vae, 0)
    vae.eval().requires_grad_(False)
    ids = {"image_id": IMAGE_ID, "pad_id": PAD_ID}
    return FlowObjective(model, vae, **ids, aligned_layer=ALIGNED_LAYER, time_location=time_location)


PROMPTS = [[1, 2, 3, 4, 9], [1, 5, 9], [1, 6, 7, 8, 9]]
DROPPED = [False, False, True]


def drawing(prompts: list[list[int]] = PROMPTS, dropped: list[bool] = DROPPED) -> GenerationBatch:
    pixels = torch.rand(len(prompts), 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return collate_generation(prompts, dropped, list(pixels.numpy()))


def everything(objective: FlowObjective) -> MixedBatch:
    patches, generation = objective.model.config.siglip.num_patches, drawing()
    row = TextRow([1, 2, *[IMAGE_ID] * patches, 3, 4, 5], patches + 3)
    reading = collate_understanding([row], [generation.pixels[0].numpy()])
    return MixedBatch(reading, collate_text([TextRow([1, 2, 3], 1)]), generation)


def draw(objective: FlowObjective, batch: GenerationBatch) -> tuple[Tensor, Tensor]:
    """Flow and alignment with the noise of one seed."""
    torch.manual_seed(5)
    with torch.no_grad():
        return objective.draw(batch)


@pytest.mark.parametrize("location", [0.0, -1.0])
def test_flow_and_alignment_are_those_of_the_paper_written_out(location: float) -> None:
    objective = build(time_location=location)
    model, batch = objective.model, drawing()
    flow, alignment = draw(objective, batch)
    with torch.no_grad():
        latents = objective.vae.moments(batch.pixels)[0] * objective.vae.scaling_factor
    torch.manual_seed(5)
    noise = torch.randn_like(latents)
    times = torch.sigmoid(location + torch.randn(3))
    squares: list[float] = []
    cosines: list[float] = []
    for n, prompt in enumerate(PROMPTS):
        pixels, x, t = batch.pixels[n : n + 1], latents[n : n + 1], float(times[n])
        with torch.no_grad():
            z = t * x + (1 - t) * noise[n : n + 1]
            velocity, states = in_steps_of_inference(objective, z, 1000 * t, prompt[:-1], DROPPED[n])
            wanted = x - noise[n : n + 1]
            squares += [
                (a - b) ** 2 for a, b in zip(velocity.flatten().tolist(), wanted.flatten().tolist(), strict=True)
            ]
            for state, feature in zip(states[0], model.vision(pixels)[0], strict=True):
                ours = objective.projector(state)
                cosines.append(float(ours @ feature / (ours.norm() * feature.norm())))
    assert float(flow) == pytest.approx(sum(squares) / len(squares), rel=1e-4)
    assert float(alignment) == pytest.approx(-sum(cosines) / len(cosines), abs=1e-5)
    losses = objective(MixedBatch(generation=batch))
    assert losses.parts.keys() == {"flow", "alignment"}


def in_steps_of_inference(
    objective: FlowObjective, z: Tensor, time: float, prompt: list[int], dropped: bool
) -> tuple[Tensor, Tensor]:
    """Velocity and aligned states of one picture, its prompt in a cache."""
    model, states = objective.model, []
    cache = KVCache(model.config.llama, 1, len(prompt), model.dtype, model.device)
    (known,) = PromptBook(model, PAD_ID, prefill_tokens=1).look_up([prompt])
    cache.put(0, known.keys, known.values)
    num_latents = model.config.num_latent_tokens
    step = next_block([len(prompt)], [dropped], 1 + num_latents, model.device)
    layer = model.llama.layers[ALIGNED_LAYER - 1]
    hook = layer.register_forward_hook(lambda _, __, out: states.append(out[None, -num_latents:]))
    velocity = model.velocity(z, torch.tensor([time]), step, cache=cache)
    hook.remove()
    return velocity, states[0]


def test_total_is_the_sum_of_its_parts(objective: FlowObjective) -> None:
    torch.manual_seed(5)
    losses = objective(everything(objective))
    assert losses.parts.keys() == {"understanding", "text", "flow", "alignment"}
    counts = {"understanding": 2, "text": 2}
    entropy = sum(count * float(losses.parts[name]) for name, count in counts.items()) / 4
    drawn = float(losses.parts["flow"] + losses.parts["alignment"])
    assert losses.total.item() == pytest.approx(entropy + drawn, rel=1e-5)


def test_the_words_of_a_dropped_prompt_make_no_difference_and_those_of_a_kept_one_do(objective: FlowObjective) -> None:
    usual, _ = draw(objective, drawing())
    other_dropped, _ = draw(objective, drawing([*PROMPTS[:2], [1, 50, 60, 70, 9]]))
    other_kept, _ = draw(objective, drawing([[1, 50, 60, 70, 9], *PROMPTS[1:]]))
    now_kept, _ = draw(objective, drawing(dropped=[False, False, False]))
    torch.testing.assert_close(usual, other_dropped, rtol=0, atol=1e-6)
    assert abs(usual - other_kept) > 1e-4
    assert abs(usual - now_kept) > 1e-4


def test_times_are_between_noise_and_picture_with_the_middle_likeliest(
    objective: FlowObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watch(batch: GenerationBatch, z: Tensor, time_B: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(time_B)
        return torch.zeros_like(z), torch.zeros(len(z), 64, objective.model.config.llama.hidden_size)

    monkeypatch.setattr(objective, "_velocity", watch)
    monkeypatch.setattr(objective.model.vision, "forward", lambda pixels: torch.ones(len(pixels), 64, 64))
    monkeypatch.setattr(objective.vae, "encode", lambda pixels: torch.zeros(len(pixels), 4, 16, 16))
    objective.draw(GenerationBatch(*[torch.zeros(2000)] * 3, torch.zeros(2000, 1)))
    times = seen[0] / 1000
    assert 0 < times.min() < 0.1 < 0.9 < times.max() < 1
    assert abs(times.mean() - 0.5) < 0.02
    assert abs((times.logit()).std() - 1) < 0.05


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_trains_its_own_parameters_and_no_others(stage: Literal[1, 2, 3], objective: FlowObjective) -> None:
    train_only(objective.model, stage)
    objective(everything(objective)).total.backward()
    with_gradient = {name for name, p in objective.named_parameters() if p.grad is not None}
    wanted = {
        name
        for name, _ in objective.named_parameters()
        if name.startswith("projector.") or (name.startswith("model.") and name.split(".")[1] in TRAINED[stage])
    }
    assert with_gradient == wanted
    learning = {name.split(".")[1] for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning >= TRAINED[stage]


def test_pictures_to_draw_never_teach_the_tower(objective: FlowObjective) -> None:
    train_only(objective.model, 3)
    objective(MixedBatch(generation=drawing())).total.backward()
    assert [name for name, p in objective.model.vision.named_parameters() if p.grad is not None] == []
    assert all(p.grad is not None and p.grad.any() for p in objective.projector.parameters())
    assert objective.model.llama.embed_tokens.weight.grad is not None
    assert objective.model.image_start.grad is None
