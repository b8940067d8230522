"""Training that was stopped and resumed gives the weights of training that was not, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_config, tiny_flow_config
from janus_core.models.janus import Janus
from janus_core.models.vae import build_vae
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training import vq as vq_training
from janus_core.training.batches import RowMaker
from janus_core.training.flow import FlowObjective
from janus_core.training.initial import initialise
from janus_core.training.loop import Settings, Stopped, Stream, read_log, train
from janus_core.training.objectives import JanusObjective
from janus_core.training.presets import Phase, Ratio
from janus_core.training.stages import train_only
from janus_core.training.streams import Mixture, Pictures
from janus_core.training.vq import VQObjective

SETTINGS = Settings(seed=1, precision="float32", log_every=1)
MIXED = Phase("mixed", 5, 3, 1e-3, 2, "cosine", stage=3, ratio=Ratio(1, 1, 1))
HALF = (0.5, 0.5, 0.5)


def images(side: int) -> ImageSettings:
    return ImageSettings(side, 14, HALF, HALF, 1 / 255, True)


@pytest.fixture
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_checkpoint)


def janus(tokenizer: Tokenizer) -> tuple[nn.Module, Stream, Phase]:
    tiny = tiny_config()
    small = replace(tiny.vq, base_channels=32, channel_multipliers=(1, 1, 1), num_res_blocks=1)
    config = replace(tiny, siglip=replace(tiny.siglip, image_size=32), vq=small)
    model = build_empty(config).to_empty(device="cpu")
    initialise(model, 0)
    train_only(model, 3)
    rows = RowMaker(tokenizer, chat.BRACKETED, config.siglip.num_patches)
    objective = JanusObjective(model, image_id=tokenizer.image_id, pad_id=tokenizer.pad_id)
    return objective, Mixture(images(32), 0, MIXED, rows), MIXED


def janusflow(tokenizer: Tokenizer) -> tuple[nn.Module, Stream, Phase]:
    tiny = tiny_flow_config()
    config = replace(tiny, siglip=replace(tiny.siglip, image_size=32, patch_size=8))
    model, vae = build_empty(config).to_empty(device="cpu"), build_vae(config.vae, sample_size=32)
    initialise(model, 0)
    initialise(vae, 0)
    train_only(model, 3)
    vae.eval().requires_grad_(False)
    rows = RowMaker(tokenizer, chat.PLAIN, config.siglip.num_patches)
    objective = FlowObjective(model, vae, image_id=tokenizer.image_id, pad_id=tokenizer.pad_id, aligned_layer=1)
    return objective, Mixture(images(32), 0, MIXED, rows), MIXED


def vq(tokenizer: Tokenizer) -> tuple[nn.Module, Stream, Phase]:
    """Quantised from the second step on; the codebook is begun and revived on the way, out of buffers."""
    tiny = tiny_config().vq
    small = replace(tiny, num_codes=24, channel_multipliers=(1, 1), num_res_blocks=1)
    model = Janus(replace(tiny_config(), vq=small))
    initialise(model, 0)
    phase = Phase("vq", 7, 2, 1e-3, 2, muon_rate=2e-3)
    objective = VQObjective(model.vq, side=8, quantise_from=1, revive_until=6)
    return objective, Pictures(images(16), 0, phase), phase


def state(objective: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in objective.named_parameters()} | dict(objective.named_buffers())


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("make", [janus, janusflow, vq])
def test_a_run_that_was_stopped_twice_equals_one_that_was_not(
    make: Callable[[Tokenizer], tuple[nn.Module, Stream, Phase]],
    decay: float | None,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vq_training, "_REVIVE_EVERY", 2)
    torch.manual_seed(0)
    whole, stream, usual = make(tokenizer)
    phase = replace(usual, ema_decay=decay)
    first = {name: tensor.clone() for name, tensor in state(whole).items()}
    train(whole, stream, phase, tmp_path / "whole", SETTINGS)
    for stop_at in (2, phase.steps - 1, None):
        torch.manual_seed(0)
        parts, stream, _ = make(tokenizer)
        with pytest.raises(Stopped) if stop_at else nullcontext():
            train(parts, stream, phase, tmp_path / "parts", replace(SETTINGS, stop_at=stop_at))
    ours, wanted = state(parts), state(whole)
    assert [name for name in wanted if not torch.equal(ours[name], wanted[name])] == []
    assert sum(not torch.equal(first[name], wanted[name]) for name in wanted) > 10
    logs = [read_log(tmp_path / folder / "log.jsonl") for folder in ("whole", "parts")]
    assert [line["step"] for line in logs[1]] == list(range(1, phase.steps + 1))
    assert [line | {"seconds": 0} for line in logs[0]] == [line | {"seconds": 0} for line in logs[1]]
