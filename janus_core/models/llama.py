"""The language model: a plain Llama decoder over embeddings, with a static cache.

Shapes: B rows, T tokens, D width, H query heads, K key heads, E head size, S cached positions.
Source: transformers models/llama/modeling_llama.py. q, k, v and gate, up are fused; the sums are the same.

Rows are laid out from position 0 with padding behind (see engine/batcher.py). So a prefill needs no mask beside the
causal one, and a step masks what lies behind each row's own position.
"""

from __future__ import annotations

from torch import Tensor, nn

from janus_core.configs import LlamaConfig
from janus_core.engine.cache import KVCache, Step
from janus_core.models.layers import RMSNorm, rotary_table, rotate


class Attention(nn.Module):
    """Causal attention with rotary positions; scale 1/sqrt(E)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_size = config.num_heads, config.num_kv_heads, config.head_size
        fused = (config.num_heads + 2 * config.num_kv_heads) * config.head_size
        self.qkv_proj = nn.Linear(config.hidden_size, fused, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, layer: int, cache: KVCache | None, step: Step) -> Tensor:
        heads = self.qkv_proj(x_BTD).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        q, k, v = heads.split((self.num_heads, self.num_kv_heads, self.num_kv_heads), dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.write(layer, k, v, step)
        mixed = nn.functional.scaled_dot_product_attention(
            q.to(k.dtype),
            k,
            v,
            attn_mask=step.mask,
            is_causal=step.mask is None,
            enable_gqa=self.num_heads != self.num_kv_heads,
        )
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2).to(x_BTD.dtype))
        return out


class Mlp(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(nn.functional.silu(gate) * up)
        return out


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, cache: KVCache | None, step: Step) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, layer, cache, step)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    def __init__(self, config: LlamaConfig, max_positions: int) -> None:
        super().__init__()
        self.config = config
        self.max_positions = max_positions
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self._rotary: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BTD: Tensor, step: Step, cache: KVCache | None = None) -> Tensor:
        """Hidden states [B, T, D] after the final norm.

        Args:
            x_BTD: embeddings of the new tokens.
            step: where they stand and what they may see.
            cache: takes their keys and values and, on a step, gives back the earlier ones.
        """
        cos, sin = self._angles(x_BTD, step.positions)
        for index, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, cos, sin, index, cache, step)
        out: Tensor = self.norm(x_BTD)
        return out

    def _angles(self, x: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        if self._rotary is None or self._rotary[0].device != x.device or self._rotary[0].dtype != x.dtype:
            cos, sin = rotary_table(self.max_positions, self.config.head_size, self.config.rope_theta, x.device)
            self._rotary = cos.to(x.dtype), sin.to(x.dtype)
        cos, sin = self._rotary
        return cos[positions_BT].unsqueeze(1), sin[positions_BT].unsqueeze(1)
