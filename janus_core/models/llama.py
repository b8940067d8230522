"""The language model: a plain Llama decoder over embeddings, with a static cache.

Shapes: B rows, T tokens, N = B T, D width, H query heads, K key heads, E head size, S cached positions.
Source: transformers models/llama/modeling_llama.py. q, k, v and gate, up are fused; the sums are the same.

Rows are laid out from position 0 with padding behind (see engine/batcher.py). So a prefill needs no mask beside the
causal one, and a step masks what lies behind each row's own position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from janus_core.configs import LlamaConfig
from janus_core.engine.cache import KVCache, Step
from janus_core.models.kernels import Fused, Heads
from janus_core.models.layers import Linear, RMSNorm, rotary_table


class Angles(NamedTuple):
    """Of all tokens, [N, E] each."""

    cos: Tensor
    sin: Tensor


class Seen(NamedTuple):
    """What the newest tokens see of a layer: its cache [R, K, S, E], up to their own positions [B], none as far as
    `num_seen`.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    num_seen: int


class Attention(Fused):
    """x + causal attention, with rotary positions, of what is normed; scale 1/sqrt(E)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads = Heads(config.num_heads, config.num_kv_heads, config.head_size)
        fused = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self.qkv_proj = Linear(config.hidden_size, fused, bias=False)
        self.o_proj = Linear(config.num_heads * config.head_size, config.hidden_size, bias=False)

    def forward(
        self,
        x_ND: Tensor,
        normed_ND: Tensor,
        angles: Angles,
        layer: int,
        cache: KVCache | None,
        step: Step,
        wanted: Tensor | None,
    ) -> Tensor:
        shape = step.positions.shape
        cos, sin = (torch.unflatten(rows, 0, shape)[:, None] for rows in (angles.cos, angles.sin))
        qkv_BTF = torch.unflatten(self.qkv_proj(normed_ND), 0, shape)
        q, k, v = self.kernels.rotated_heads(qkv_BTF, cos, sin, self.heads)
        if cache is not None:
            k, v = cache.write(layer, k, v, step)
        mixed_BTF = self.kernels.attend(q.to(k.dtype), k, v, step.mask, step.mask is None)
        mixed_NF = mixed_BTF.flatten(0, 1).to(x_ND.dtype)
        if wanted is not None:
            x_ND, mixed_NF = x_ND[wanted], mixed_NF[wanted]
        return self.o_proj.add_to(x_ND, mixed_NF)

    def newest(self, x_BD: Tensor, normed_BD: Tensor, angles: Angles, seen: Seen) -> Tensor:
        """The same of one token in each of the first slots."""
        attend_newest = self.kernels.attend_newest
        assert attend_newest is not None
        qkv_BF = self.qkv_proj(normed_BD)
        mixed_BF = attend_newest(
            qkv_BF,
            angles.cos,
            angles.sin,
            seen.keys,
            seen.values,
            seen.positions,
            seen.num_seen,
            self.heads,
        )
        return self.o_proj.add_to(x_BD, mixed_BF)


class Mlp(Fused):
    """x + down(silu(gate) * up) of what is normed."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_up_proj = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        return self.down_proj.add_to(x, self.kernels.gated(self.gate_up_proj(normed)))


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self,
        x_ND: Tensor,
        angles: Angles,
        layer: int,
        cache: KVCache | None,
        step: Step,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """wanted: int64, of which tokens the states are returned; None: of all."""
        x_ND = self.self_attn(x_ND, self.input_layernorm(x_ND), angles, layer, cache, step, wanted)
        out: Tensor = self.mlp(x_ND, self.post_attention_layernorm(x_ND))
        return out

    def newest(self, x_BD: Tensor, angles: Angles, seen: Seen) -> Tensor:
        """The same of one token in each of the first slots."""
        x_BD = self.self_attn.newest(x_BD, self.input_layernorm(x_BD), angles, seen)
        out: Tensor = self.mlp(x_BD, self.post_attention_layernorm(x_BD))
        return out


class Llama(Fused):
    newest_through: Callable[[Layer, Tensor, Angles, Seen], Tensor] = staticmethod(Layer.newest)

    def __init__(self, config: LlamaConfig, max_positions: int) -> None:
        super().__init__()
        self.config = config
        self.max_positions = max_positions
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self._rotary: tuple[Tensor, Tensor] | None = None

    def forward(
        self, x_BTD: Tensor, step: Step, cache: KVCache | None = None, *, last_B: Tensor | None = None
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm, or [B, D] of one token of each row.

        Args:
            x_BTD: embeddings of the new tokens.
            step: where they stand and what they may see.
            cache: takes their keys and values and, on a step, gives back the earlier ones.
            last_B: int64, which token of each row is asked for; the others spare most of the last layer.
        """
        angles = self._angles(x_BTD, step.positions)
        if cache is not None and step.is_newest and self.kernels.attend_newest is not None:
            return self._newest(x_BTD, angles, cache, step)
        num_rows, num_tokens, _ = x_BTD.shape
        wanted = None if last_B is None else num_tokens * torch.arange(num_rows, device=x_BTD.device) + last_B
        x_ND, ends = x_BTD.flatten(0, 1), len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x_ND = layer(x_ND, angles, index, cache, step, wanted if index == ends else None)
        hidden: Tensor = self.norm(x_ND)
        return hidden.view(x_BTD.shape) if wanted is None else hidden

    def _newest(self, x_B1D: Tensor, angles: Angles, cache: KVCache, step: Step) -> Tensor:
        assert step.mask is not None
        x_BD, positions_B, num_seen = x_B1D.flatten(0, 1), step.positions[:, 0], step.mask.shape[-1]
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            x_BD = self.newest_through(layer, x_BD, angles, Seen(*cache.layer(index), positions_B, num_seen))
        hidden: Tensor = self.norm(x_BD)
        return hidden.view(x_B1D.shape)

    @property
    def cache_dtype(self) -> torch.dtype:
        """What keys and values are kept in. torch's attention over a bfloat16 cache is half as fast on the CPU."""
        weight = self.norm.weight
        wide = weight.device.type == "cpu" and self.kernels.attend_newest is None
        return torch.float32 if wide else weight.dtype

    def _angles(self, x: Tensor, positions_BT: Tensor) -> Angles:
        if self._rotary is None or self._rotary[0].device != x.device or self._rotary[0].dtype != x.dtype:
            cos, sin = rotary_table(self.max_positions, self.config.head_size, self.config.rope_theta, x.device)
            self._rotary = cos.to(x.dtype), sin.to(x.dtype)
        cos, sin = self._rotary
        positions_N = positions_BT.flatten()
        return Angles(cos[positions_N], sin[positions_N])
