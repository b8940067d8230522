"""The learning rate over time, the optimizer, and the running mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from janus_core.training.optimizer import RunningMean, build_optimizers, learning_rate_at, set_learning_rates
from janus_core.training.presets import Phase

CONSTANT = Phase("p", 100, 1, 1e-3, 10, "constant", weight_decay=0.1)
COSINE = Phase("p", 100, 1, 1e-3, 10, "cosine")


@pytest.mark.parametrize("phase", [CONSTANT, COSINE])
def test_the_rate_rises_in_equal_steps_from_the_first_step_on(phase: Phase) -> None:
    assert [learning_rate_at(phase, step) for step in (0, 1, 4, 9)] == pytest.approx([1e-4, 2e-4, 5e-4, 1e-3])
    assert learning_rate_at(phase, 10) == 1e-3


def test_a_constant_rate_stays() -> None:
    assert {learning_rate_at(CONSTANT, step) for step in range(10, 100)} == {1e-3}


def test_half_a_cosine_ends_at_zero() -> None:
    rates = [learning_rate_at(COSINE, step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[45], rates[90]) == pytest.approx((5e-4, 0))
    assert 0 < rates[89] < 1e-6, "the last step still learns a little"


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert learning_rate_at(Phase("p", 10, 1, 1e-3, 0, "cosine"), 0) == 1e-3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.head = nn.Linear(2, 3)


def test_the_optimizer_is_the_papers_one() -> None:
    (optimizer,) = build_optimizers(Net(), CONSTANT)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-8, 0.1)
    assert len(group["params"]) == 6


def test_muon_trains_the_matrices_inside_blocks_where_it_has_a_rate() -> None:
    net = Net()
    net.blocks[1].weight.requires_grad_(False)
    adam, muon = build_optimizers(net, replace(CONSTANT, muon_rate=4e-3))
    assert isinstance(muon, torch.optim.Muon)
    (matrix,) = muon.param_groups[0]["params"]
    assert matrix.data_ptr() == net.blocks[0].weight.data_ptr()
    assert len(adam.param_groups[0]["params"]) == 4
    set_learning_rates((adam, muon), CONSTANT, 4)
    assert [each.param_groups[0]["lr"] for each in (adam, muon)] == pytest.approx([5e-4, 2e-3])


def test_muon_takes_a_convolution_as_a_matrix() -> None:
    convolution, linear = nn.Conv2d(3, 4, 3), nn.Linear(27, 4)
    linear.load_state_dict({"weight": convolution.weight.detach().flatten(1), "bias": convolution.bias.detach()})
    pixels = torch.linspace(-1, 1, 54)
    take_steps(nn.ModuleDict({"conv": convolution}), convolution, pixels.view(2, 3, 3, 3))
    take_steps(nn.ModuleDict({"blocks": nn.ModuleList([linear])}), linear, pixels.view(2, 27))
    assert torch.allclose(convolution.weight.flatten(1), linear.weight, atol=1e-6)


def take_steps(objective: nn.Module, net: nn.Module, pixels: torch.Tensor) -> None:
    optimizers = build_optimizers(objective, replace(CONSTANT, muon_rate=4e-3))
    before = net.weight.detach().clone()
    for _ in range(3):
        net(pixels).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert net.weight.grad is None
    assert not torch.equal(net.weight, before)


def test_a_running_mean_follows_the_weights() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    mean, slow = RunningMean([weight], 0.9), 1.0
    for value in (2.0, -1.0, 5.0):
        weight.data.fill_(value)
        mean.update()
        slow = 0.9 * slow + 0.1 * value
    assert mean.means[0].item() == pytest.approx(slow)
    mean.exchange()
    assert (weight.item(), mean.means[0].item()) == (pytest.approx(slow), 5.0)
    mean.exchange()
    assert weight.item() == 5.0


def test_without_decay_the_mean_is_the_weights() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    mean = RunningMean([weight], 0.0)
    weight.data.fill_(3.0)
    mean.update()
    assert mean.means[0].item() == 3.0
