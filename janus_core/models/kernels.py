"""Small arithmetic between the matrix products, one function for each pass over memory that it can be done in.

Everything here is plain torch, and that is what runs unless engine/packing.py puts compiled ones in their place
(`use_kernels`). A compiler keeps float32 between the operations of one function, where plain bfloat16 rounds.

Shapes: B rows, T tokens, D width, H query heads, K key heads, G query heads per key head, E head size, R slots,
S cached positions, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Heads(NamedTuple):
    """How a fused projection falls into heads: H queries, K keys and as many values, of E numbers each."""

    num_queries: int
    num_keys: int
    size: int


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) in float32, cast back, and only then times the weight (the order matters in bf16).

    Source: transformers models/llama/modeling_llama.py LlamaRMSNorm.
    """
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def rotate(x_BHTE: Tensor, cos_BT: Tensor, sin_BT: Tensor) -> Tensor:
    """Turn queries or keys to their positions; cosines and sines are [B, 1, T, E]."""
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cos_BT + torch.cat((-second, first), dim=-1) * sin_BT


def split_heads(qkv: Tensor, heads: Heads) -> list[Tensor]:
    """[..., F] as queries [..., H, E], keys and values [..., K, E]."""
    num_queries, num_keys, size = heads
    split = torch.unflatten(qkv, -1, (num_queries + 2 * num_keys, size))
    return list(torch.split(split, [num_queries, num_keys, num_keys], dim=-2))


def rotated_heads(qkv_BTF: Tensor, cos: Tensor, sin: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, H, T, E], keys and values [B, K, T, E], at their positions; cosines and sines are [B, 1, T, E]."""
    q, k, v = (part.transpose(1, 2) for part in split_heads(qkv_BTF, heads))
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def contiguous_heads(qkv_BTF: Tensor, cos: Tensor, sin: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """As `rotated_heads`; all of them contiguous."""
    q, k, v = rotated_heads(qkv_BTF, cos, sin, heads)
    return q, k, v.contiguous()


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """torch's own attention, [B, T, H E]; scale 1/sqrt(E). mask: bool [B, 1, T, S], true where a token may look."""
    mixed_BHTE = nn.functional.scaled_dot_product_attention(
        q_BHTE, k_BKSE, v_BKSE, attn_mask=mask, is_causal=is_causal, enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1]
    )
    return mixed_BHTE.transpose(1, 2).flatten(2)


def weights_of_all(scores: Tensor, scale: float) -> Tensor:
    return torch.softmax(scores * scale, dim=-1)


def weights_up_to(scores: Tensor, scale: float, first: int) -> Tensor:
    """Of queries [..., T, S] that stand at `first` and behind it, and see no later position."""
    num_queries, num_keys = scores.shape[-2:]
    queries = first + torch.arange(num_queries, device=scores.device)
    seen = torch.arange(num_keys, device=scores.device) <= queries[:, None]
    return torch.softmax(torch.where(seen, scores * scale, -torch.inf), dim=-1)


def weights_where(scores: Tensor, scale: float, seen: Tensor) -> Tensor:
    return torch.softmax(torch.where(seen, scores * scale, -torch.inf), dim=-1)


def gated(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 F]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return nn.functional.silu(gate) * up


def attend_newest(
    qkv_BF: Tensor,
    cos_BE: Tensor,
    sin_BE: Tensor,
    keys_RKSE: Tensor,
    values_RKSE: Tensor,
    positions_B: Tensor,
    num_seen: int,
    heads: Heads,
) -> Tensor:
    """What the newest token of each of the first slots mixes of all up to it, [B, H E]; stores its key and value.

    Sums are float32. Written for a compiler: uncompiled it makes a float32 copy of all that is seen, so the plain path
    does without (models/llama.py).
    """
    num_rows = len(qkv_BF)
    q, k, v = split_heads(qkv_BF, heads)
    q, k = rotate(q, cos_BE[:, None], sin_BE[:, None]), rotate(k, cos_BE[:, None], sin_BE[:, None])
    rows = torch.arange(num_rows, device=qkv_BF.device)
    keys_RKSE[rows, :, positions_B] = k
    values_RKSE[rows, :, positions_B] = v
    keys, values = keys_RKSE[:num_rows, :, None, :num_seen], values_RKSE[:num_rows, :, None, :num_seen]
    q_BKGE = torch.unflatten(q, 1, (heads.num_keys, heads.num_queries // heads.num_keys)).float()
    scores_BKGS = (q_BKGE[..., None, :] * keys.float()).sum(-1) * heads.size**-0.5
    seen_BS = torch.arange(num_seen, device=qkv_BF.device) <= positions_B[:, None]
    weights = torch.softmax(torch.where(seen_BS[:, None, None], scores_BKGS, -torch.inf), dim=-1)
    return (weights[..., None] * values.float()).sum(-2).to(qkv_BF.dtype).flatten(1)


def swish(x: Tensor) -> Tensor:
    """x * sigmoid(x) with the sigmoid rounded to x's dtype, as officially; in place, to hold one copy.

    Gradients need the sigmoid itself, so where there are any the product is another tensor, of the same bits.
    Source: deepseek-ai/Janus@1daa72f janus/models/vq_model.py nonlinearity.
    """
    gate = torch.sigmoid(x)
    return gate * x if gate.requires_grad else gate.mul_(x)


def swish_over(x_N: Tensor) -> Tensor:
    """As `swish`, over x itself and without gradients."""
    return x_N.copy_(x_N * torch.sigmoid(x_N))


def plus(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def to_bytes(x_BF: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as uint8 around 128, and what one level is worth, float32 [B, 1]."""
    wide = x_BF.float()
    level = wide.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return (wide / level).round().add(128).to(torch.uint8), level


def rescaled(y_BF: Tensor, level_B1: Tensor, bias_F: Tensor) -> Tensor:
    """Products of such rows, at their size again."""
    return (y_BF * level_B1 + bias_F).to(y_BF.dtype)


@dataclass(frozen=True)
class Kernels:
    """attend_newest is None where that too is left to `attend`. swish and plus may use up what they are given first."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    rotated_heads: Callable[[Tensor, Tensor, Tensor, Heads], tuple[Tensor, Tensor, Tensor]] = rotated_heads
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None, bool], Tensor] = attend
    attend_newest: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, Heads], Tensor] | None = None
    gated: Callable[[Tensor], Tensor] = gated
    swish: Callable[[Tensor], Tensor] = swish
    plus: Callable[[Tensor, Tensor], Tensor] = plus
    to_bytes: Callable[[Tensor], tuple[Tensor, Tensor]] = to_bytes
    rescaled: Callable[[Tensor, Tensor, Tensor], Tensor] = rescaled


PLAIN = Kernels()


class Fused(nn.Module):
    """A module whose arithmetic may be exchanged."""

    kernels: Kernels = PLAIN


def use_kernels(model: nn.Module, kernels: Kernels) -> None:
    for module in model.modules():
        if isinstance(module, Fused):
            module.kernels = kernels
