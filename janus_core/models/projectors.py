"""Aligners and the image head: Linear, then (GELU, Linear) per further layer.

Source: deepseek-ai/Janus@1daa72f janus/models/projector.py ("mlp_gelu"), modeling_vlm.py vision_head. GELU is the
erf form.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from janus_core.models.layers import Linear


class Projector(nn.Module):
    """`widths` are input, hidden and output sizes: (1024, 2048, 2048) is an aligner of depth 2."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(Linear(size_in, size_out) for size_in, size_out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            assert isinstance(layer, Linear)
            x = layer.gelu(x)
        out: Tensor = last(x)
        return out
