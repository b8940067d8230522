"""Keys and values of the requests that are being answered: a pool of slots, made once and used again and again.

Shapes: L layers, R slots, K key heads, S positions, E head size, T new tokens, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from janus_core.configs import LlamaConfig


@dataclass(frozen=True)
class Step:
    """Where new tokens stand and what they may see; made in engine/batcher.py only.

    positions: int64 [B, T], of each new token in its own row.
    mask: None: causal among the new tokens alone (a prefill). Else bool [B, 1, T, S], true where a token may look.
    slots: the cache's slots of the rows; None: the first ones, in their order.
    is_kept: whether the cache keeps the new tokens. Of those that it does not keep S counts the cached positions first,
        and then the new tokens themselves.
    """

    positions: Tensor
    mask: Tensor | None
    slots: Sequence[int] | None = None
    is_kept: bool = True

    @property
    def is_newest(self) -> bool:
        """One token that is kept in each of the first slots."""
        return self.mask is not None and self.is_kept


class KVCache:
    """A slot holds a request or a guidance half; its position p holds the p-th token. Zeroed, as 0 x NaN is NaN."""

    def __init__(
        self, config: LlamaConfig, num_slots: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_layers, num_slots, config.num_kv_heads, capacity, config.head_size)
        self.k_LRKSE, self.v_LRKSE = _zeros(shape, dtype, device), _zeros(shape, dtype, device)
        self.num_slots, self.capacity = num_slots, capacity
        self._slot_index = torch.arange(num_slots, device=device)

    def write(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Store the new tokens if they are kept; give back what attention is to see.

        That is on a prefill the new tokens alone, on a step the whole rows, and of tokens that are not kept the rows
        with them behind.
        """
        num_rows, _, num_tokens, _ = k_BKTE.shape
        keys, values = self.layer(layer)
        if step.mask is None:
            slots = list(step.slots or range(num_rows))
            if keys.device.type == "cpu":  # five times as fast there as all at once
                for row, slot in enumerate(slots):
                    keys[slot, :, :num_tokens], values[slot, :, :num_tokens] = k_BKTE[row], v_BKTE[row]
            else:
                keys[slots, :, :num_tokens] = k_BKTE.to(keys.dtype)
                values[slots, :, :num_tokens] = v_BKTE.to(values.dtype)
            return k_BKTE, v_BKTE
        assert step.slots is None, "attention reads slots where they lie"
        keys, values = keys[:num_rows], values[:num_rows]
        if not step.is_kept:
            seen = step.mask.shape[-1] - num_tokens
            return torch.cat((keys[:, :, :seen], k_BKTE), dim=2), torch.cat((values[:, :, :seen], v_BKTE), dim=2)
        index = self._slot_index[:num_rows], slice(None), step.positions[:, 0]
        keys[index] = k_BKTE[:, :, 0].to(keys.dtype)
        values[index] = v_BKTE[:, :, 0].to(values.dtype)
        seen = step.mask.shape[-1]
        return keys[:, :, :seen], values[:, :, :seen]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, S, E] of a layer."""
        return self.k_LRKSE[layer], self.v_LRKSE[layer]

    def move(self, source: int, target: int, num_positions: int) -> None:
        """Let a slot hold what another one holds, up to so many positions."""
        self.put(target, *self.get(source, num_positions))

    def get(self, slot: int, num_positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values [L, K, S, E] of a slot's first positions, as they lie in the cache."""
        return self.k_LRKSE[:, slot, :, :num_positions], self.v_LRKSE[:, slot, :, :num_positions]

    def put(self, slot: int, k_LKSE: Tensor, v_LKSE: Tensor) -> None:
        """Fill a slot from its first position on."""
        num_positions = k_LKSE.shape[2]
        self.k_LRKSE[:, slot, :, :num_positions] = k_LKSE
        self.v_LRKSE[:, slot, :, :num_positions] = v_LKSE


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On the CPU by way of numpy: slots that were never used then take no memory, where torch would touch them all."""
    if device.type == "cpu":
        num_bytes = math.prod(shape) * dtype.itemsize
        return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)


def bytes_per_token(config: LlamaConfig, dtype: torch.dtype) -> int:
    """Bytes of one token of one slot of a cache of this dtype."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_size * dtype.itemsize
