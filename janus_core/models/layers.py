"""Blocks that several parts share.

Shapes: B rows, T tokens, D width, H heads, E head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, and only then times the weight (the order matters in bf16).

    Source: transformers models/llama/modeling_llama.py LlamaRMSNorm.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotary_table(num_positions: int, head_size: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 [num_positions, head_size], for the rotate-half form of rotary positions."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64, device=device).float() / head_size
    frequencies = 1.0 / (theta**exponents)
    angles = torch.arange(num_positions, device=device).float()[:, None] * frequencies[None, :]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHTE: Tensor, cos_BT: Tensor, sin_BT: Tensor) -> Tensor:
    """Turn queries or keys to their positions; cosines and sines are [B, 1, T, E]."""
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cos_BT + torch.cat((-second, first), dim=-1) * sin_BT
