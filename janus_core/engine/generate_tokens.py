"""Images from prompts, one image token per row and step, with classifier-free guidance.

Shapes: R rows (all conditional, then the unconditional of guided images), B images, D width, C image codes.
Source: deepseek-ai/Janus@1daa72f generation_inference.py:50-118.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from janus_core.engine.batcher import next_step
from janus_core.engine.cache import KVCache
from janus_core.engine.guidance import Guidance, without_prompt
from janus_core.engine.prompts import fill_prompts
from janus_core.engine.sampling import Picker, Sampling, draw_stream, sampling_device
from janus_core.models.janus import Janus

TOKEN_GUIDANCE, TOKEN_TEMPERATURE = 5.0, 1.0
"""As in the published generation_inference.py."""

Pick = Callable[[Tensor, int], Tensor]


@dataclass(eq=False)
class ImageRow:
    """A prompt, from begin-of-sentence to begin-of-image, and its image once drawn; `codes` stay None if cancelled."""

    index: int
    ids: list[int]
    guidance: float
    sampling: Sampling
    codes: Tensor | None = None

    @property
    def is_drawn(self) -> bool:
        return self.codes is not None


class ImageDrawer:
    """One batch of images, all drawn in step.

    Two hooks, for those who compare with the published loop: `pick(mixed logits float32 [B, C], step)` in place of
    the rows' own sampling, and `on_logits(logits [R, C], mixed [B, C])`.
    """

    def __init__(
        self,
        model: Janus,
        *,
        pad_id: int,
        is_cancelled: Callable[[int], bool],
        pick: Pick | None = None,
        on_logits: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self._model, self._pad_id, self._is_cancelled = model, pad_id, is_cancelled
        self._pick, self._on_logits = pick, on_logits

    @torch.inference_mode()
    def run(self, images: Sequence[ImageRow]) -> None:
        """Fill in the codes of every image; a cancelled one is left without."""
        model, num_codes = self._model, self._model.config.num_codes_per_image
        images = [image for image in images if not self._is_cancelled(image.index)]
        if not images:
            return
        batch = _Batch(images, num_codes, model.device)
        prompts = [image.ids for image in images]
        prompts += [without_prompt(prompts[n], self._pad_id) for n in batch.guidance.guided]
        capacity = max(map(len, prompts)) + num_codes - 1
        cache = KVCache(model.config.llama, len(prompts), capacity, model.dtype, model.device)
        hidden_RD = fill_prompts(model, cache, prompts, self._pad_id)
        positions_R = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        num_seen = max(map(len, prompts)) + 1
        for step in range(num_codes):
            gone = [n for n, image in enumerate(batch.images) if self._is_cancelled(image.index)]
            if gone:
                rows = batch.drop(gone)
                if not rows:
                    return
                cache.rearrange(rows)
                hidden_RD, positions_R = hidden_RD[rows], positions_R[rows]
            codes_B = self._choose(batch, hidden_RD, step)
            batch.codes_BN[:, step] = codes_B
            if step + 1 < num_codes:
                embeddings_RD = model.embed_codes(batch.guidance.feed(codes_B))
                place = next_step(positions_R + step, num_seen + step)
                hidden_RD = model.llama(embeddings_RD[:, None], place, cache).flatten(0, 1)
        for image, codes_N in zip(batch.images, batch.codes_BN, strict=True):
            image.codes = codes_N

    def _choose(self, batch: _Batch, hidden_RD: Tensor, step: int) -> Tensor:
        logits_RC = self._model.image_logits(hidden_RD)
        mixed_BC = batch.guidance.mix(logits_RC)
        if self._on_logits is not None:
            self._on_logits(logits_RC, mixed_BC)
        if self._pick is not None:
            return self._pick(mixed_BC, step)
        return batch.picker(mixed_BC, batch.streams_BN[:, step])


class _Batch:
    """What belongs to the images that are still being drawn."""

    def __init__(self, images: Sequence[ImageRow], num_codes: int, device: torch.device) -> None:
        self._device = device
        self.codes_BN = torch.empty((len(images), num_codes), dtype=torch.int64, device=device)
        streams_BN = torch.stack([draw_stream(image.sampling, num_codes) for image in images])
        self.streams_BN = streams_BN.to(sampling_device(device))
        self._compose(images)

    def _compose(self, images: Sequence[ImageRow]) -> None:
        self.images = list(images)
        self.guidance = Guidance([image.guidance for image in images], self._device)
        self.picker = Picker([image.sampling for image in images], self._device)

    def drop(self, gone: Sequence[int]) -> list[int]:
        """Take images out. Returns the rows that stay, conditional and unconditional, in their order."""
        kept = [n for n in range(len(self.images)) if n not in gone]
        rows = kept + [len(self.images) + m for m, n in enumerate(self.guidance.guided) if n in kept]
        self.codes_BN, self.streams_BN = self.codes_BN[kept], self.streams_BN[kept]
        self._compose([self.images[n] for n in kept])
        return rows
