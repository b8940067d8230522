"""The language model in 8 bits: weights with a scale for each output, inputs with one for each row, sums exact.

So a row's product does not depend on the others beside it. Between the products of a step everything that is small is
done in one pass.

Shapes: B rows, D width, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.engine.compiling import CompiledForHeads, compiled
from janus_core.models import kernels
from janus_core.models.kernels import Fused, Heads
from janus_core.models.layers import Linear
from janus_core.models.llama import Angles, Layer, Seen

LAID_OUT_FOR = 16
"""Rows. From 1 to 2400 of them no other choice was faster, in bfloat16 or bytes (two cores of an AMD EPYC)."""


class Int8Linear(Fused, Linear):
    """A weight of 8 bits; what comes in and goes out has the usual dtype."""

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_parameter("bias", None)
        weight_OI = linear.weight.detach().float()
        self._scales = (weight_OI.abs().amax(1) / 127).clamp_min(1e-12)
        rounded_OI = (weight_OI / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded_OI, [LAID_OUT_FOR, self.in_features])
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)
        self._bias = torch.zeros(()) if linear.bias is None else linear.bias.detach().float()

    def forward(self, input: Tensor) -> Tensor:
        rows_NF, level_N1 = self.kernels.to_bytes(input.flatten(0, -2))
        products_NF = self.multiply(rows_NF, input.dtype)
        return self.kernels.rescaled(products_NF, level_N1, self._bias).view(*input.shape[:-1], -1)

    def multiply(self, rows_NF: Tensor, dtype: torch.dtype) -> Tensor:
        """Products of rows of bytes as `kernels.to_bytes` makes them, in the levels that they are worth."""
        products: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows_NF, 1.0, 128, self._weight, self._scales, self._zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return products


class BytesStep:
    """`Layer.newest` of a layer whose products are of bytes."""

    def __init__(self) -> None:
        self._normed, self._attended = compiled(_normed), CompiledForHeads(_attended)
        self._added_and_normed, self._gated, self._added = (
            compiled(_added_and_normed),
            compiled(_gated),
            compiled(_added),
        )

    def __call__(self, layer: Layer, x_BD: Tensor, angles: Angles, seen: Seen) -> Tensor:
        attention, norm = layer.self_attn, layer.post_attention_layernorm
        rows, level = self._normed(x_BD, layer.input_layernorm.weight, layer.input_layernorm.eps)
        products = _multiply(attention.qkv_proj, rows, x_BD.dtype)
        rows, level = self._attended(products, level, angles, seen, attention.heads)
        products = _multiply(attention.o_proj, rows, x_BD.dtype)
        x_BD, rows, level = self._added_and_normed(x_BD, products, level, norm.weight, norm.eps)
        products = _multiply(layer.mlp.gate_up_proj, rows, x_BD.dtype)
        rows, level = self._gated(products, level)
        products = _multiply(layer.mlp.down_proj, rows, x_BD.dtype)
        return self._added(x_BD, products, level)


def _multiply(linear: Linear, rows_BF: Tensor, dtype: torch.dtype) -> Tensor:
    assert isinstance(linear, Int8Linear)
    return linear.multiply(rows_BF, dtype)


def _normed(x_BD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return kernels.to_bytes(kernels.rms_norm(x_BD, weight_D, eps))


def _attended(products_BF: Tensor, level_B1: Tensor, angles: Angles, seen: Seen, heads: Heads) -> tuple[Tensor, Tensor]:
    qkv_BF = (products_BF * level_B1).to(products_BF.dtype)
    mixed_BF = kernels.attend_newest(
        qkv_BF, angles.cos, angles.sin, seen.keys, seen.values, seen.positions, seen.num_seen, heads
    )
    return kernels.to_bytes(mixed_BF)


def _added_and_normed(
    x_BD: Tensor, products_BD: Tensor, level_B1: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    x_BD = _added(x_BD, products_BD, level_B1)
    return x_BD, *_normed(x_BD, weight_D, eps)


def _gated(products_BF: Tensor, level_B1: Tensor) -> tuple[Tensor, Tensor]:
    return kernels.to_bytes(kernels.gated((products_BF * level_B1).to(products_BF.dtype)))


def _added(x_BD: Tensor, products_BD: Tensor, level_B1: Tensor) -> Tensor:
    return (x_BD + products_BD * level_B1).to(x_BD.dtype)
