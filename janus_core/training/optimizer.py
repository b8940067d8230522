"""AdamW as the papers set it, its learning rate over time, and a running mean of the weights.

Source: see presets.py. Everything here is a function of the step, so that a run that resumes goes on as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from janus_core.training.presets import BETAS, EPSILON, Phase


def build_optimizer(parameters: Iterable[nn.Parameter], phase: Phase) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters, lr=phase.learning_rate, betas=BETAS, eps=EPSILON, weight_decay=phase.weight_decay, fused=True
    )


def learning_rate_at(phase: Phase, step: int) -> float:
    """Linear warm-up from the first step on, then constant or half a cosine, which reaches zero after the last step."""
    if step < phase.warmup_steps:
        return phase.learning_rate * (step + 1) / phase.warmup_steps
    if phase.schedule == "constant":
        return phase.learning_rate
    done = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


class RunningMean:
    """mean <- decay * mean + (1 - decay) * weights, after every step."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = list(parameters), decay
        self.means: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.means, [parameter.detach() for parameter in self._parameters], 1 - self._decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the means with the weights; a second call swaps them back."""
        for mean, parameter in zip(self.means, self._parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)
