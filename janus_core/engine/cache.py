"""Keys and values of the rows that are being continued, allocated once per call.

Shapes: L layers, R rows, K key heads, S positions, E head size, T new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from janus_core.configs import LlamaConfig


@dataclass(frozen=True)
class Step:
    """Where new tokens stand and what they may see; made in engine/batcher.py only.

    positions: int64 [B, T], of each new token in its own row.
    mask: None: causal among the new tokens alone (a prefill). Else bool [B, 1, T, S], true where a token may look.
    first_row: the cache row of the batch's first row; the others follow it.
    is_kept: whether the cache keeps the new tokens. Of those that it does not keep S counts the cached positions first,
        and then the new tokens themselves.
    """

    positions: Tensor
    mask: Tensor | None
    first_row: int
    is_kept: bool = True


class KVCache:
    """A row is a request or a guidance half; position p of a row holds its p-th token. Zeroed, as 0 x NaN is NaN."""

    def __init__(
        self, config: LlamaConfig, num_rows: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_layers, num_rows, config.num_kv_heads, capacity, config.head_size)
        self.k_LRKSE = torch.zeros(shape, dtype=stored_dtype(dtype, device), device=device)
        self.v_LRKSE = torch.zeros_like(self.k_LRKSE)
        self._row_index = torch.arange(num_rows, device=device)

    def write(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Store the new tokens if they are kept; give back what attention is to see.

        That is on a prefill the new tokens alone, on a step the whole rows, and of tokens that are not kept the rows
        with them behind.
        """
        num_rows, _, num_tokens, _ = k_BKTE.shape
        rows = slice(step.first_row, step.first_row + num_rows)
        keys, values = self.k_LRKSE[layer, rows], self.v_LRKSE[layer, rows]
        if step.mask is None:
            keys[:, :, :num_tokens] = k_BKTE
            values[:, :, :num_tokens] = v_BKTE
            return k_BKTE, v_BKTE
        if not step.is_kept:
            seen = step.mask.shape[-1] - num_tokens
            return torch.cat((keys[:, :, :seen], k_BKTE), dim=2), torch.cat((values[:, :, :seen], v_BKTE), dim=2)
        index = self._row_index[:num_rows], slice(None), step.positions[:, 0]
        keys[index] = k_BKTE[:, :, 0].to(keys.dtype)
        values[index] = v_BKTE[:, :, 0].to(values.dtype)
        seen = step.mask.shape[-1]
        return keys[:, :, :seen], values[:, :, :seen]

    def rearrange(self, order: Sequence[int]) -> None:
        """Let row i hold what row order[i] held; order[i] >= i, so that nothing is overwritten before it is read."""
        for target, source in enumerate(order):
            if source != target:
                self.k_LRKSE[:, target] = self.k_LRKSE[:, source]
                self.v_LRKSE[:, target] = self.v_LRKSE[:, source]

    def copy_rows(self, source: KVCache, order: Sequence[int]) -> None:
        """Let row i hold the prompt that row order[i] of `source` holds."""
        length = source.k_LRKSE.shape[3]
        for target, row in enumerate(order):
            self.k_LRKSE[:, target, :, :length] = source.k_LRKSE[:, row]
            self.v_LRKSE[:, target, :, :length] = source.v_LRKSE[:, row]


def stored_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values are kept in: float32 on the CPU, where attention over a bfloat16 cache is half as fast."""
    return torch.float32 if device.type == "cpu" else dtype


def bytes_per_token(config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Cache bytes of one token of one row of a model of this dtype."""
    per_value = stored_dtype(dtype, device).itemsize
    return 2 * config.num_layers * config.num_kv_heads * config.head_size * per_value


def fill_holes(num_rows: int, gone: Sequence[int]) -> list[int]:
    """The order that closes the holes of rows that ended by moving as few others as possible.

    fill_holes(5, [1]) is [0, 4, 2, 3]: the last row moves into the hole.
    """
    kept = num_rows - len(gone)
    order = list(range(kept))
    tail = [row for row in range(kept, num_rows) if row not in gone]
    for hole in gone:
        if hole < kept:
            order[hole] = tail.pop()
    return order
