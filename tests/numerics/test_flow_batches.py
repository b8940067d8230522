"""JanusFlow at other sizes than the golden ones: alone and in batches, by both solvers, against transformers' Llama."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, Rejected, load_engine
from janus_core.bench.flow import PublishedLoop
from janus_core.checkpoints.random import tiny_flow_config, write_random_checkpoint
from janus_core.configs import JanusFlowConfig, LlamaConfig, SiglipConfig, UViTConfig, VaeConfig
from janus_core.engine import lane
from janus_core.engine.batcher import lay_out_with_block
from janus_core.engine.cache import KVCache
from janus_core.engine.flow_lane import FlowLane, OnMove
from janus_core.engine.painters import draw_noise
from janus_core.engine.rows import FlowRow
from janus_core.models.janusflow import JanusFlow

from .conftest import answer

TOLERANCE = 1e-4
"""Of latents up to 6; 1e-5 was measured."""
NUM_REQUESTS = 14


def other_config() -> JanusFlowConfig:
    """No two sizes alike, two doublings, grouped heads, an overlapping first convolution, latents of 3 channels."""
    return JanusFlowConfig(
        llama=LlamaConfig(
            hidden_size=96,
            intermediate_size=200,
            num_layers=2,
            num_heads=6,
            num_kv_heads=2,
            head_size=16,
            vocab_size=300,
            max_positions=2048,
            rope_theta=5000.0,
            norm_eps=1e-5,
        ),
        siglip=SiglipConfig(image_size=48, patch_size=16, width=80, num_layers=3, num_heads=5, mlp_width=160),
        uvit=UViTConfig(
            latent_channels=3,
            width=28,
            read_width=20,
            kernel_size=6,
            stride=4,
            padding=1,
            num_encoder_blocks=1,
            num_decoder_blocks=3,
            num_doublings=2,
            encoder_eps=1e-6,
            decoder_eps=1e-5,
        ),
        vae=VaeConfig(
            latent_channels=3, block_channels=(8, 16), layers_per_block=1, num_norm_groups=4, scaling_factor=0.7
        ),
    )


@pytest.fixture(scope="module", params=[tiny_flow_config(), other_config()], ids=["tiny", "other"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("flow") / "random", request.param, dtype="float32", seed=3)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(folder, device="cpu")


@pytest.fixture(scope="module")
def model(engine: Engine) -> JanusFlow:
    assert isinstance(engine.model, JanusFlow)
    return engine.model


def drawings(model: JanusFlow) -> list[GenerateRequest]:
    dice = random.Random(0)
    requests = [
        GenerateRequest(
            prompt="a cat " * dice.randrange(1, 8),
            seed=number,
            guidance=dice.choice((None, 1.0, 3.5)),
            steps=dice.randrange(1, 5),
            solver=dice.choice(("euler", "heun")),
        )
        for number in range(NUM_REQUESTS)
    ]
    requests[3] = replace(requests[3], noise=draw_noise(99, model.config.latent_shape))
    return requests


def prepared(engine: Engine, requests: Sequence[GenerateRequest]) -> list[FlowRow]:
    rows = [engine.prepare_image(request) for request in requests]
    assert all(isinstance(row, FlowRow) for row in rows)
    return [row for row in rows if isinstance(row, FlowRow)]


def draw(model: JanusFlow, rows: Sequence[FlowRow], max_rows: int = 9, on_move: OnMove | None = None) -> None:
    answer(FlowLane(model, pad_id=0, max_slots=2 * max_rows, max_rows=max_rows, on_move=on_move), rows)


def latents(engine: Engine, requests: Sequence[GenerateRequest]) -> list[Tensor]:
    rows = prepared(engine, requests)
    assert isinstance(engine.model, JanusFlow)
    draw(engine.model, rows)
    return [row.latents for row in rows if row.latents is not None]


def test_latents_do_not_depend_on_their_batch(engine: Engine, model: JanusFlow) -> None:
    requests = drawings(model)
    together = latents(engine, requests)
    assert len(together) == NUM_REQUESTS
    for request, one in zip(requests, together, strict=True):
        torch.testing.assert_close(latents(engine, [request])[0], one, rtol=0, atol=TOLERANCE)
    order = list(range(NUM_REQUESTS))
    random.Random(1).shuffle(order)
    for first in range(0, NUM_REQUESTS, 4):
        some = order[first : first + 4]
        for index, one in zip(some, latents(engine, [requests[index] for index in some]), strict=True):
            torch.testing.assert_close(one, together[index], rtol=0, atol=TOLERANCE)


def test_on_the_cpu_pictures_are_equal_alone_and_together(engine: Engine, model: JanusFlow) -> None:
    requests = drawings(model)[:6]
    together = engine.generate(requests)
    for request, one in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert isinstance(one, GeneratedImage)
        assert isinstance(alone, GeneratedImage)
        assert one.codes is None
        assert one.image.size == (engine.info.image_size, engine.info.image_size)
        assert one.image.tobytes() == alone.image.tobytes()


def test_pictures_of_a_batch_are_equal_to_a_level(engine: Engine, model: JanusFlow) -> None:
    requests = drawings(model)[:6]
    alone, rows = engine.generate(requests), prepared(engine, requests)
    draw(model, rows)
    for one, other in zip(engine.painter.decode(rows), alone, strict=True):
        assert isinstance(other, GeneratedImage)
        levels = np.abs(np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int))
        assert levels.max() <= 1
        assert (levels > 0).mean() < 1e-3


def test_images_that_come_later_join_those_that_run(engine: Engine, model: JanusFlow) -> None:
    requests = drawings(model)
    alone, rows = latents(engine, requests), prepared(engine, requests)
    running = FlowLane(model, pad_id=0, max_slots=8, max_rows=5)
    waiting, most = list(rows), 0
    while waiting or not running.is_idle:
        for row in waiting[:2]:
            running.scheduler.add(row)
        del waiting[:2]
        running.turn()
        most = max(most, len(running.scheduler.running))
    assert most > 2
    for row, one in zip(rows, alone, strict=True):
        assert row.latents is not None
        torch.testing.assert_close(row.latents, one, rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_the_published_loop_on_another_llama(folder: Path, engine: Engine, model: JanusFlow) -> None:
    loop = PublishedLoop(folder, model.dtype, model.device, engine.tokenizer.pad_id)
    requests = [GenerateRequest("a cat " * n, seed=n, guidance=3.0, steps=4) for n in (1, 3, 2)]
    for request, ours in zip(requests, latents(engine, requests), strict=True):
        row = engine.prepare_image(request)
        assert isinstance(row, FlowRow)
        theirs = loop(row.ids, row.noise, 4, row.guidance)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_with_the_prompts_cache_and_without(engine: Engine, model: JanusFlow) -> None:
    rows = [engine.prepare_image(replace(drawings(model)[n], steps=3, solver="euler", guidance=2.0)) for n in range(4)]
    images = [row for row in rows if isinstance(row, FlowRow)]
    points = torch.stack([row.noise for row in images])
    ids = [row.ids for row in images]
    dropped = [False] * 4 + [True] * 4
    laid = lay_out_with_block(ids * 2, dropped, 1 + model.config.num_latent_tokens, 0, model.device)
    prompts = model.llama.embed_tokens(laid.ids)

    def compare(times: Tensor, velocities: Tensor, after: Tensor) -> None:
        nonlocal points
        without = model.velocity(points.repeat(2, 1, 1, 1), times.repeat(2), laid.step, prompt_RPD=prompts)
        torch.testing.assert_close(velocities, without, rtol=1e-5, atol=1e-5)
        points = after

    draw(model, images, on_move=compare)


@torch.inference_mode()
def test_heun_takes_the_mean_of_two_velocities(engine: Engine, model: JanusFlow) -> None:
    request = GenerateRequest("a cat", seed=5, guidance=1.0, steps=3, solver="heun")
    row = engine.prepare_image(request)
    assert isinstance(row, FlowRow)
    laid = lay_out_with_block([row.ids], [False], 1 + model.config.num_latent_tokens, 0, model.device)
    prompt = model.llama.embed_tokens(laid.ids)

    def velocity(z: Tensor, t: float) -> Tensor:
        return model.velocity(z, torch.tensor([1000 * t]), laid.step, prompt_RPD=prompt)

    z = row.noise[None]
    for step in range(3):
        first = velocity(z, step / 3)
        second = velocity(z + first / 3, (step + 1) / 3)
        z = z + (first + second) / 6
    torch.testing.assert_close(latents(engine, [request])[0], z[0], rtol=1e-4, atol=TOLERANCE)


def test_noise_is_the_seeds_own_draw_unless_it_is_given(engine: Engine, model: JanusFlow) -> None:
    shape = model.config.latent_shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    by_seed, given, listed, another = latents(
        engine,
        [
            GenerateRequest("a cat", seed=7, steps=2),
            GenerateRequest("a cat", seed=8, steps=2, noise=noise.double()),
            GenerateRequest("a cat", seed=9, steps=2, noise=noise.tolist()),
            GenerateRequest("a cat", seed=8, steps=2),
        ],
    )
    assert torch.equal(by_seed, given)
    assert torch.equal(by_seed, listed)
    assert not torch.allclose(by_seed, another, atol=0.1)


def test_what_cannot_be_drawn_is_rejected_in_its_place(engine: Engine, model: JanusFlow) -> None:
    shape = model.config.latent_shape
    channels, height, width = shape
    asked = {
        "wrong shape": GenerateRequest("x", noise=torch.zeros(channels, height, width + 1)),
        "a batch": GenerateRequest("x", noise=torch.zeros(1, *shape)),
        "not finite": GenerateRequest("x", noise=torch.full(shape, float("nan"))),
        "no array": GenerateRequest("x", noise="static"),
    }
    fine = GenerateRequest("x", steps=1)
    first, *rejected, last = engine.generate([fine, *asked.values(), fine])
    assert isinstance(first, GeneratedImage)
    assert isinstance(last, GeneratedImage)
    for what, result in zip(asked, rejected, strict=True):
        assert isinstance(result, Rejected), what
        assert result.code == "noise_invalid"
        assert str(list(shape)) in result.message
    codes = {"prompt_too_long": GenerateRequest("x" * 5000), "option_invalid": GenerateRequest("x", steps=0)}
    for code, request in codes.items():
        (result,) = engine.generate([request])
        assert isinstance(result, Rejected)
        assert result.code == code


def test_the_longest_prompt_fills_the_context(engine: Engine, model: JanusFlow) -> None:
    overhead = len(engine.tokenizer.encode("User: \n\nAssistant:<begin_of_image>")) - 1
    room = model.config.max_positions - 1 - model.config.num_latent_tokens - overhead
    for length, fits in ((room, True), (room + 1, False)):
        row = engine.prepare_image(GenerateRequest("x" * length, steps=1))
        assert isinstance(row, FlowRow) == fits
    (drawn,) = engine.generate([GenerateRequest("x" * room, steps=1, guidance=1.0)])
    assert isinstance(drawn, GeneratedImage)


def test_cancelled_images_leave_between_moves_and_the_others_are_as_before(engine: Engine, model: JanusFlow) -> None:
    requests = [replace(request, steps=4, solver="euler") for request in drawings(model)[:6]]
    before, rows = latents(engine, requests), prepared(engine, requests)
    moves = 0

    def cancel(*_: Tensor) -> None:
        nonlocal moves
        moves += 1
        rows[1].is_cancelled = rows[4].is_cancelled = moves == 3

    rows[2].is_cancelled = True
    draw(model, rows, on_move=cancel)
    assert [row.num_moved for row in rows] == [4, 3, 0, 4, 3, 4]
    for n, row in enumerate(rows):
        if n in (1, 2, 4):
            assert row.latents is None
        else:
            assert row.latents is not None
            torch.testing.assert_close(row.latents, before[n], rtol=0, atol=TOLERANCE)
    everything = engine.generate(requests, is_cancelled=lambda _: True)
    assert {result.code for result in everything if isinstance(result, Rejected)} == {"cancelled"}
    assert engine.generate([]) == []


def test_captions_do_not_depend_on_their_batch(engine: Engine) -> None:
    rng, dice = np.random.default_rng(0), random.Random(0)
    sizes = rng.integers(8, 90, (9, 2))
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    requests = [CaptionRequest(image, "?" * dice.randrange(1, 20), dice.randrange(2, 12)) for image in images]
    requests.append(CaptionRequest(images[:2], "<image_placeholder> or <image_placeholder>?", 8, temperature=1.0))
    requests.append(CaptionRequest(images[2], "a literal <begin_of_image> stays text", 8))
    together = engine.caption(requests)
    assert all(isinstance(result, Caption) for result in together)
    assert [engine.caption([request])[0] for request in requests] == together


def test_running_out_of_memory_shrinks_the_batch(
    engine: Engine, model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [replace(request, guidance=2.0, steps=2) for request in drawings(model)[:5]]
    alone, rows = latents(engine, requests), prepared(engine, requests)
    asked: list[int] = []

    class SmallCache(KVCache):
        most = 4

        def __init__(self, config: LlamaConfig, num_slots: int, *rest: Any) -> None:
            asked.append(num_slots)
            if num_slots > self.most:
                raise torch.OutOfMemoryError("of a small device")
            super().__init__(config, num_slots, *rest)

    monkeypatch.setattr(lane, "KVCache", SmallCache)
    draw(model, rows)
    assert asked == [18, 9, 4]
    for row, one in zip(rows, alone, strict=True):
        assert row.latents is not None
        torch.testing.assert_close(row.latents, one, rtol=0, atol=TOLERANCE)
    SmallCache.most = 0
    (row,) = prepared(engine, requests[:1])
    draw(model, [row])
    assert isinstance(row.error, torch.OutOfMemoryError)
