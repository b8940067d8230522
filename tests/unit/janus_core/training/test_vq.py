"""The image tokenizer's own training: how it starts, when it quantises, and codes that nobody uses."""

from __future__ import annotations

import pytest
import torch

from janus_core.configs import VQConfig
from janus_core.models.vq import VQModel
from janus_core.training import vq as training
from janus_core.training.initial import initialise
from janus_core.training.losses import object_weights
from janus_core.training.vq import VQObjective, spread, start_plain

CONFIG = VQConfig(
    num_codes=24, code_size=4, base_channels=32, channel_multipliers=(1, 1), num_res_blocks=1, z_channels=32
)


def model() -> VQModel:
    vq = VQModel(CONFIG)
    initialise(vq, 0)
    start_plain(vq)
    return vq


def pictures() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.rand(4, 3, 16, 16) * 2 - 1


def test_a_plain_start_keeps_the_strength_of_what_passes() -> None:
    vq, usual = model(), VQModel(CONFIG)
    initialise(usual, 0)
    features = {name: each.encoder.conv_in(pictures()).std() for name, each in (("plain", vq), ("usual", usual))}
    assert features["plain"] > 2 * features["usual"]
    block = vq.decoder.mid[0]
    x = torch.randn(1, 32, 4, 4)
    torch.testing.assert_close(block(x) - x, block.conv2.bias.view(1, -1, 1, 1).expand_as(x))


def test_codes_come_into_play_at_their_step_as_features_of_the_model() -> None:
    objective = VQObjective(model(), side=8, quantise_from=2, revive_until=8)
    before = objective.vq.codebook.detach().clone()
    for step in range(3):
        losses = objective(pictures())
        assert (losses.parts["commitment"] == 0) == (step < 2)
        assert torch.equal(objective.vq.codebook, before) == (step < 2)


def test_codes_settle_on_the_means_of_the_features_that_choose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_MEMORY", 0.8)
    objective = VQObjective(model(), side=8, quantise_from=1, revive_until=0)
    for _ in range(80):
        objective(pictures())
    z = torch.nn.functional.normalize(objective.vq.encode_features(pictures()), dim=-1)
    codes, features = objective.vq.nearest_codes(z).flatten(), z.flatten(0, 1)
    for code in codes.unique():
        torch.testing.assert_close(objective.vq.codebook[code], features[codes == code].mean(0), rtol=0, atol=1e-3)


def test_training_goes_straight_through_the_codes() -> None:
    objective = VQObjective(model(), side=8, quantise_from=1, revive_until=0)
    objective(pictures())
    objective(pictures()).total.backward()
    silent = [name for name, p in objective.vq.named_parameters() if p.grad is None]
    assert silent == ["codebook"]
    assert objective.vq.encoder.conv_in.weight.grad.any()


def test_unused_codes_start_anew_while_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_REVIVE_EVERY", 2)
    for revive_until, is_revived in ((5, True), (2, False)):
        objective = VQObjective(model(), side=8, quantise_from=1, revive_until=revive_until)
        objective(pictures())
        objective(pictures())
        far = -100 * objective.features[:128].mean(0)
        with torch.no_grad():
            objective.vq.codebook[5] = far
        for _ in range(3):
            objective.used[5] = False
            objective(pictures())
        assert torch.equal(objective.vq.codebook[5].detach(), far) != is_revived


def test_spread_points_are_far_apart() -> None:
    torch.manual_seed(0)
    points = torch.cat((torch.zeros(500, 2) + 0.001 * torch.randn(500, 2), torch.eye(2), -torch.eye(2)))
    chosen = spread(points, 5)
    assert all((chosen - corner).norm(dim=1).min() < 0.01 for corner in (*torch.eye(2), *-torch.eye(2)))


def test_objects_weigh_twice_what_is_behind_them() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[0, 0, :2, :2] = 1.0
    weights = object_weights(picture)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[0, 0, 0, 0] == pytest.approx(2 * float(weights[0, 0, 7, 7]))
