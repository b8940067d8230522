"""AdamW as the papers set it, Muon for parts that they take ready-made, rates over time, a running mean of the weights.

Source: presets.py; Muon is torch's (Keller Jordan, https://kellerjordan.github.io/posts/muon, which flattens
convolutions so too). Everything here is a function of the step, so that a run that resumes goes on as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from janus_core.training.presets import BETAS, EPSILON, Phase

_BLOCKS = {"blocks", "layers"}
_CONVOLUTION = 4  # dimensions of its weight


def build_optimizers(objective: nn.Module, phase: Phase) -> list[torch.optim.Optimizer]:
    """AdamW for what requires gradients; where the phase has a rate for it, Muon for matrices and convolutions."""
    trained = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    matrices = {
        name: parameter
        for name, parameter in trained.items()
        if phase.muon_rate is not None and _is_matrix(name, parameter)
    }
    others = [parameter for name, parameter in trained.items() if name not in matrices]
    rate, decay = phase.learning_rate, phase.weight_decay
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(_group(others, rate), betas=BETAS, eps=EPSILON, weight_decay=decay, fused=True)
    ]
    if matrices and phase.muon_rate is not None:
        group = _group(list(matrices.values()), phase.muon_rate)
        optimizers.append(Muon(group, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


class Muon(torch.optim.Muon):
    """torch's, and for convolutions too: to it, each is the matrix [out, in * height * width]."""

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        self._whole: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self._flat = [nn.Parameter(parameter.detach().flatten(1)) for parameter in self._whole]
        flat = iter(self._flat)
        super().__init__([{**group, "params": [next(flat) for _ in group["params"]]} for group in groups], **options)

    def step(self, closure: Any = None) -> Any:
        """One step; the matrices share memory with the weights, wherever these were moved since."""
        for flat, whole in zip(self._flat, self._whole, strict=True):
            flat.data = whole.detach().flatten(1)
            flat.grad = None if whole.grad is None else whole.grad.flatten(1)
        return super().step(closure)  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for whole in self._whole:
            whole.grad = None


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Inside a block; embeddings and heads are tables, whose rows AdamW trains each at its own pace."""
    return parameter.ndim == _CONVOLUTION or (parameter.ndim == 2 and bool(_BLOCKS & set(name.split("."))))


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
