"""Blocks that several parts share.

Shapes: B rows, T tokens, D width, H heads, E head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.models.kernels import Fused


class Linear(nn.Linear):
    """x W^T + b, and what follows it most often: a kernel may do both in one go (engine/packing.py)."""

    def gelu(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        out: Tensor = residual + self(x)
        return out


class RMSNorm(Fused):
    """See `kernels.rms_norm`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.rms_norm(x, self.weight, self.eps)


def rotary_table(num_positions: int, head_size: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [num_positions, head_size], for the rotate-half form of rotary positions."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64, device=device).float() / head_size
    frequencies = 1.0 / (theta**exponents)
    angles = torch.arange(num_positions, device=device).float()[:, None] * frequencies[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()
