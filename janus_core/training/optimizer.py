"""AdamW as the papers set it, Muon for parts that they take ready-made, rates over time, a running mean of the weights.

Source: presets.py; Muon is torch's (Keller Jordan, https://kellerjordan.github.io/posts/muon). Everything here is a
function of the step, so that a run that resumes goes on as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from janus_core.training.presets import BETAS, EPSILON, Phase

_BLOCKS = {"blocks", "layers"}


def build_optimizers(objective: nn.Module, phase: Phase) -> list[torch.optim.Optimizer]:
    """AdamW for what requires gradients; where the phase has a rate for it, Muon for the matrices inside blocks."""
    trained = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    matrices = {
        name: parameter
        for name, parameter in trained.items()
        if phase.muon_rate is not None and parameter.ndim == 2 and _BLOCKS & set(name.split("."))
    }
    others = [parameter for name, parameter in trained.items() if name not in matrices]
    rate, decay = phase.learning_rate, phase.weight_decay
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(_group(others, rate), betas=BETAS, eps=EPSILON, weight_decay=decay, fused=True)
    ]
    if matrices and phase.muon_rate is not None:
        group = _group(list(matrices.values()), phase.muon_rate)
        optimizers.append(torch.optim.Muon(group, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _group(parameters: list[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": rate, "peak": rate}]


def learning_rate_at(phase: Phase, step: int) -> float:
    """Linear warm-up from the first step on, then constant or half a cosine, which reaches zero after the last step."""
    if step < phase.warmup_steps:
        return phase.learning_rate * (step + 1) / phase.warmup_steps
    if phase.schedule == "constant":
        return phase.learning_rate
    done = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return phase.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], phase: Phase, step: int) -> None:
    share = learning_rate_at(phase, step) / phase.learning_rate
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


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
