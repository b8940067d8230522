"""Padding, positions and masks: made here and nowhere else.

A row starts at position 0 and is padded behind, to the longest of its batch. Causal attention never looks forward,
so the padding of a prefill is seen by padding only; on later steps each row sees its own positions up to the newest,
and the padding is overwritten as the row grows. Every row has the same positions and sees the same tokens as it
would alone. The pads *inside* an unconditional prompt (see guidance.py) are tokens like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from janus_core.engine.cache import Step


@dataclass(frozen=True)
class Prefill:
    """Prompts side by side. ids: int64 [B, T], padded behind; last: int64 [B], where each row's last token is."""

    ids: Tensor
    last: Tensor
    step: Step


def lay_out(rows: Sequence[Sequence[int]], pad_id: int, first_row: int, device: torch.device) -> Prefill:
    """Pad prompts to a common length; they go to the cache rows from `first_row` on."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    positions_BT = torch.arange(longest, device=device).expand(len(rows), longest)
    return Prefill(
        ids=torch.tensor(ids, device=device),
        last=torch.tensor([len(row) - 1 for row in rows], device=device),
        step=Step(positions=positions_BT, mask=None, first_row=first_row),
    )


def next_step(positions_B: Tensor, num_seen: int) -> Step:
    """One new token per row, from cache row 0 on.

    Args:
        positions_B: int64, where each row's new token stands.
        num_seen: more than the largest position: how far the cache is looked at.
    """
    seen_BS = torch.arange(num_seen, device=positions_B.device)[None, :] <= positions_B[:, None]
    return Step(positions=positions_B[:, None], mask=seen_BS[:, None, None, :], first_row=0)


def take(lengths: Sequence[int], num_rows: int, num_tokens: int) -> int:
    """How many of the next prompts go into one prefill: at most `num_rows`, and `num_tokens` with their padding."""
    longest = 0
    for count, length in enumerate(lengths[:num_rows]):
        longest = max(longest, length)
        if count and longest * (count + 1) > num_tokens:
            return count
    return min(len(lengths), num_rows)
