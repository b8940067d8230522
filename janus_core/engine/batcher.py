"""Padding, positions and masks: made here and nowhere else.

A row starts at position 0 and is padded behind, to the longest of its batch. Causal attention never looks forward,
so the padding of a prefill is seen by padding only; on later steps each row sees its own positions up to the newest,
and the padding is overwritten as the row grows. Every row has the same positions and sees the same tokens as it
would alone. The pads *inside* an unconditional prompt (see guidance.py) are tokens like any other.

JanusFlow's latents are a block of tokens behind the prompt, with the time in front. A block comes again at every step
of the solver and is never kept; it sees the prompt, or of a prompt that was dropped the begin-of-sentence alone, and
stands where it would stand behind the whole prompt.
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


def lay_out(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device, slots: Sequence[int] | None = None
) -> Prefill:
    """Pad prompts to a common length. slots: of the cache; the first ones unless given."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    positions_BT = torch.arange(longest, device=device).expand(len(rows), longest)
    return Prefill(
        ids=torch.tensor(ids, device=device),
        last=torch.tensor([len(row) - 1 for row in rows], device=device),
        step=Step(
            positions=positions_BT,
            mask=None,
            slots=slots,
        ),
    )


def next_step(positions_B: Tensor, num_seen: int) -> Step:
    """One new token in each of the first slots.

    Args:
        positions_B: int64, where each row's new token stands.
        num_seen: more than the largest position: how far the cache is looked at.
    """
    seen_BS = torch.arange(num_seen, device=positions_B.device)[None, :] <= positions_B[:, None]
    return Step(positions=positions_B[:, None], mask=seen_BS[:, None, None, :])


def next_block(lengths: Sequence[int], dropped: Sequence[bool], num_tokens: int, device: torch.device) -> Step:
    """A block of `num_tokens` behind every prompt; the cache holds the prompts in its first slots.

    Args:
        lengths: of the prompts, in tokens.
        dropped: of each row, whether its prompt is not to be seen but for the begin-of-sentence.
    """
    ends_B = torch.tensor(lengths, device=device)
    seen_B = torch.tensor([1 if gone else length for length, gone in zip(lengths, dropped, strict=True)], device=device)
    num_rows, longest = len(lengths), max(lengths)
    prompt_BS = torch.arange(longest, device=device)[None, :] < seen_B[:, None]
    mask = torch.cat(
        (
            prompt_BS[:, None, None, :].expand(num_rows, 1, num_tokens, longest),
            _causal(num_tokens, device).expand(num_rows, 1, num_tokens, num_tokens),
        ),
        dim=-1,
    )
    positions_BT = ends_B[:, None] + torch.arange(num_tokens, device=device)[None, :]
    return Step(positions=positions_BT, mask=mask, is_kept=False)


def lay_out_with_block(
    rows: Sequence[Sequence[int]], dropped: Sequence[bool], num_tokens: int, pad_id: int, device: torch.device
) -> Prefill:
    """Prompts and the block behind them in one pass, without a cache: what training runs.

    The rows are [prompt, padding, block]; `ids` and `last` are the prompts'. The block's rows of the mask are those of
    `next_block`, so it reads what it reads there.
    """
    prompts = lay_out(rows, pad_id, device)
    block = next_block([len(row) for row in rows], dropped, num_tokens, device)
    assert block.mask is not None
    num_rows, longest = prompts.ids.shape
    ahead = torch.zeros((num_rows, 1, longest, num_tokens), dtype=torch.bool, device=device)
    within = torch.cat((_causal(longest, device).expand(num_rows, 1, longest, longest), ahead), dim=-1)
    step = Step(
        positions=torch.cat((prompts.step.positions, block.positions), dim=1),
        mask=torch.cat((within, block.mask), dim=2),
        is_kept=False,
    )
    return Prefill(ids=prompts.ids, last=prompts.last, step=step)


def _causal(num_tokens: int, device: torch.device) -> Tensor:
    """Bool [T, T], true where a token may look."""
    return torch.ones((num_tokens, num_tokens), dtype=torch.bool, device=device).tril()


def take(lengths: Sequence[int], num_rows: int, num_tokens: int) -> int:
    """How many of the next prompts go into one prefill: at most `num_rows`, and `num_tokens` with their padding."""
    longest = 0
    for count, length in enumerate(lengths[:num_rows]):
        longest = max(longest, length)
        if count and longest * (count + 1) > num_tokens:
            return count
    return min(len(lengths), num_rows)
