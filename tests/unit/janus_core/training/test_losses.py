"""What is minimised, against the same written out slowly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from janus_core.training.losses import CrossEntropy, sigmoid_contrastive


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cross_entropy_is_one_mean_over_all_targets_whatever_their_kind() -> None:
    text, codes = random(3, 5), random(7, 11, seed=1)
    text_targets, code_targets = torch.tensor([0, 4, 2]), torch.arange(7)
    entropy = CrossEntropy()
    entropy.add("text", text, text_targets)
    entropy.add("generation", codes, code_targets)
    losses = entropy.mean()
    slow = [
        -math.log(math.exp(row[target]) / sum(math.exp(value) for value in row))
        for logits, targets in ((text, text_targets), (codes, code_targets))
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    assert float(losses.total) == pytest.approx(sum(slow) / 10)
    assert {name: float(value) for name, value in losses.parts.items()} == {
        "text": pytest.approx(sum(slow[:3]) / 3),
        "generation": pytest.approx(sum(slow[3:]) / 7),
    }


def test_a_single_kind_is_its_own_mean_and_parts_carry_no_gradient() -> None:
    logits = random(4, 3).requires_grad_()
    entropy = CrossEntropy()
    entropy.add("text", logits, torch.zeros(4, dtype=torch.int64))
    losses = entropy.mean()
    assert torch.equal(losses.total, losses.parts["text"])
    assert losses.total.requires_grad
    assert not losses.parts["text"].requires_grad


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a single target"):
        CrossEntropy().mean()


def test_the_contrastive_loss_is_that_of_the_paper_written_out() -> None:
    images, texts = (torch.nn.functional.normalize(random(4, 6, seed=n), dim=-1) for n in (0, 1))
    texts[3] = texts[1]
    same = torch.eye(4, dtype=torch.bool)
    same[1, 3] = same[3, 1] = True
    scale, bias = 7.0, -2.5
    slow = 0.0
    for i in range(4):
        for j in range(4):
            logit = scale * sum(a * b for a, b in zip(images[i].tolist(), texts[j].tolist(), strict=True)) + bias
            sign = 1 if i == j or {i, j} == {1, 3} else -1
            slow += -math.log(1 / (1 + math.exp(-sign * logit)))
    loss = sigmoid_contrastive(images, texts, same, torch.tensor(scale), torch.tensor(bias))
    assert float(loss) == pytest.approx(slow / 4, rel=1e-5)
