"""The understanding encoder: SigLIP without its pooling head.

Shapes: B images, N patches row by row, W width, H heads, E head size.
Source: deepseek-ai/Janus@1daa72f janus/models/siglip_vit.py. The attention-pooling head of the checkpoint is never run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.configs import SiglipConfig
from janus_core.models.kernels import Fused
from janus_core.models.layers import Linear

_EPS = 1e-6


class Attention(Fused):
    """x + attention of what is normed, bidirectional; one fused linear makes q, k and v, each as one block."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.num_heads = num_heads

    def forward(self, x_BNW: Tensor, normed_BNW: Tensor) -> Tensor:
        heads = self.qkv(normed_BNW).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BNW = self.kernels.attend(heads[0], heads[1], heads[2], None, False)
        return self.proj.add_to(x_BNW, mixed_BNW)


class Mlp(nn.Module):
    """x + fc2(gelu(fc1 of what is normed))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        return self.fc2.add_to(x, self.fc1.gelu(normed))


class Block(nn.Module):
    """x + attn(LN x), then x + mlp(LN x)."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_EPS)
        self.attn = Attention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width, eps=_EPS)
        self.mlp = Mlp(config.width, config.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(x, self.norm1(x))
        out: Tensor = self.mlp(x, self.norm2(x))
        return out


class Siglip(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.pos_embed = nn.Parameter(torch.empty(config.num_patches, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=_EPS)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Features [B, N, W] after the final norm, one per patch."""
        x_BNW = self.patch_embed(pixels_BCHW).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x_BNW = block(x_BNW)
        out: Tensor = self.norm(x_BNW)
        return out
