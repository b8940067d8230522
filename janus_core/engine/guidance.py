"""Classifier-free guidance: each image has a row with its prompt and, unless its guidance is 1, a row without.

Source: deepseek-ai/Janus@1daa72f generation_inference.py:63-101, demo/app_janusflow.py:136-137. In the former the rows
are interleaved; here the unconditional rows follow all conditional ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def without_prompt(ids: Sequence[int], pad_id: int) -> list[int]:
    """The unconditional prompt: as long, with pads between the first and the last token. They are attended."""
    return [ids[0], *[pad_id] * (len(ids) - 2), ids[-1]]


class Guidance:
    """Mixes the logits of one composition of the batch, in float32 whatever the model's dtype; or its velocities."""

    def __init__(self, weights: Sequence[float], device: torch.device) -> None:
        self.guided = [n for n, weight in enumerate(weights) if weight != 1]
        self._num_images = len(weights)
        self._guided = torch.tensor(self.guided, dtype=torch.int64, device=device)
        self._weights = torch.tensor([weights[n] for n in self.guided], device=device)[:, None]
        self._excess = torch.tensor([weights[n] - 1 for n in self.guided], device=device)[:, None]

    def mix(self, logits_RC: Tensor) -> Tensor:
        """One row per image: u + w (c - u). Rows: all conditional, then the unconditional of the guided images."""
        mixed = logits_RC[: self._num_images]
        if not self.guided:
            return mixed
        conditional, unconditional = mixed[self._guided], logits_RC[self._num_images :]
        return mixed.index_copy(0, self._guided, unconditional + self._weights * (conditional - unconditional))

    def extrapolate(self, velocities_RCHY: Tensor) -> Tensor:
        """One row per image: w c - (w - 1) u, each product rounded to their dtype as in the published JanusFlow."""
        alone, dtype = velocities_RCHY[: self._num_images], velocities_RCHY.dtype
        if not self.guided:
            return alone
        towards = (self._weights[:, :, None, None] * alone[self._guided]).to(dtype)
        away = (self._excess[:, :, None, None] * velocities_RCHY[self._num_images :]).to(dtype)
        return alone.index_copy(0, self._guided, towards - away)

    def feed(self, codes_B: Tensor) -> Tensor:
        """The codes as every row's next input: both halves of an image get the same."""
        return torch.cat((codes_B, codes_B[self._guided])) if self.guided else codes_B
