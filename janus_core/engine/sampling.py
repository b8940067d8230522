"""From logits to tokens, each row by its own settings and its own random stream.

A row's stream is drawn from its seed alone, on the CPU, one float64 per token; a token is picked by inverting the row's
cumulative distribution. Nothing here depends on which other rows are in the batch.

Shapes: R rows, V choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_COOLEST = 1e-4
"""Below it logits would overflow float32 once divided, and the draw be greedy anyway."""


@dataclass(frozen=True)
class Sampling:
    """temperature: 0 is greedy. top_k: 0 is off; top_p: 1 is off."""

    temperature: float
    top_p: float
    top_k: int
    seed: int

    @property
    def is_filtered(self) -> bool:
        return self.top_p < 1 or self.top_k > 0


def draw_stream(sampling: Sampling, count: int) -> Tensor:
    """The row's uniform numbers in [0, 1), float64 [count]; zeros, never looked at, for a greedy row."""
    if sampling.temperature == 0:
        return torch.zeros(count, dtype=torch.float64)
    generator = torch.Generator().manual_seed(sampling.seed)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def sampling_device(device: torch.device) -> torch.device:
    """Where a model on `device` has its tokens picked: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


class Picker:
    """Picks tokens for one composition of the batch; made anew when rows come or go."""

    def __init__(self, rows: Sequence[Sampling], device: torch.device) -> None:
        device = sampling_device(device)
        self._device = device

        def index(wanted: list[int]) -> Tensor | None:
            return torch.tensor(wanted, device=device) if wanted else None

        sampled = [n for n, row in enumerate(rows) if row.temperature > 0]
        self._plain = index([n for n in sampled if not rows[n].is_filtered])
        self._filtered = index([n for n in sampled if rows[n].is_filtered])
        self._temperature = torch.tensor([max(row.temperature, _COOLEST) for row in rows], device=device)[:, None]
        self._top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64, device=device)[:, None]
        self._top_k = torch.tensor([row.top_k or 2**31 for row in rows], device=device)[:, None]

    def __call__(self, logits_RV: Tensor, uniforms_R: Tensor) -> Tensor:
        """int64 [R]: the likeliest token of greedy rows, a drawn one of the others.

        Args:
            logits_RV: float32.
            uniforms_R: float64, each row's next number.
        """
        asked_from = logits_RV.device
        logits_RV, uniforms_R = logits_RV.to(self._device), uniforms_R.to(self._device)
        tokens_R = logits_RV.argmax(-1)
        for rows, filtered in ((self._plain, False), (self._filtered, True)):
            if rows is None:
                continue
            probabilities = torch.softmax((logits_RV[rows] / self._temperature[rows]).double(), dim=-1)
            if filtered:
                ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
                ranked = keep_likeliest(ranked, self._top_k[rows], self._top_p[rows])
                tokens_R[rows] = order.gather(1, _invert(ranked, uniforms_R[rows])[:, None])[:, 0]
            else:
                tokens_R[rows] = _invert(probabilities, uniforms_R[rows])
        return tokens_R.to(asked_from)


def keep_likeliest(ranked_RV: Tensor, top_k_R1: Tensor, top_p_R1: Tensor) -> Tensor:
    """Zero all but the first k, then all but the fewest whose share of what is left reaches p. Rows are sorted,
    descending.

    Source: transformers generation/logits_process.py, TopKLogitsWarper before TopPLogitsWarper.
    """
    ranks = torch.arange(ranked_RV.shape[1], device=ranked_RV.device)[None, :]
    kept = ranked_RV.masked_fill(ranks >= top_k_R1, 0)
    before = kept.cumsum(-1) - kept
    return kept.masked_fill((before >= top_p_R1 * kept.sum(-1, keepdim=True)) & (ranks > 0), 0)


def _invert(weights_RV: Tensor, uniforms_R: Tensor) -> Tensor:
    """The first index at which the running sum passes u times the whole; a choice of weight zero is never picked."""
    sums = weights_RV.cumsum(-1)
    goal = uniforms_R[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, goal, right=True)[:, 0].clamp(max=weights_RV.shape[1] - 1)
