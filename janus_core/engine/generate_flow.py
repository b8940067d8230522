"""JanusFlow's images: latents that flow from noise to picture, every image by its own times, guidance and noise.

The prompts' keys and values are computed once; every move of the solver runs the latents alone, as a block behind them.
In bfloat16 times, steps and latents are bfloat16 as well, which belongs to the published behaviour: 30 steps of
bfloat16(1/30) reach 1.0034.

Shapes: R rows (all conditional, then the unconditional of guided images), B images, E moves, C x H x Y latents.
Source: deepseek-ai/Janus@1daa72f demo/app_janusflow.py:78-141. There the prompt is run again at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from janus_core.engine.batcher import next_block
from janus_core.engine.cache import KVCache
from janus_core.engine.guidance import Guidance
from janus_core.engine.prompts import fill_prompts
from janus_core.engine.solvers import Move
from janus_core.models.janusflow import JanusFlow

FLOW_GUIDANCE = 2.0
FLOW_STEPS = 30
"""As in the published README."""

OnMove = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(eq=False)
class FlowRow:
    """A prompt without its last token, in whose place the time stands; and its latents once drawn, else None.

    noise: float32 [C, H, Y], where the latents begin.
    """

    index: int
    ids: list[int]
    guidance: float
    moves: list[Move]
    noise: Tensor
    latents: Tensor | None = None

    @property
    def is_drawn(self) -> bool:
        return self.latents is not None


def draw_noise(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal float32 [C, H, Y], in one draw from a CPU generator of this seed, whatever device and dtype."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


class FlowDrawer:
    """One batch of images; those that need fewer moves leave it earlier.

    `on_move` may watch: every move, its times [B], the velocities of all rows [R, C, H, Y], and the points that come of
    them [B, C, H, Y].
    """

    def __init__(
        self,
        model: JanusFlow,
        *,
        pad_id: int,
        is_cancelled: Callable[[int], bool],
        on_move: OnMove | None = None,
    ) -> None:
        self._model, self._pad_id, self._is_cancelled, self._on_move = model, pad_id, is_cancelled, on_move

    @torch.inference_mode()
    def run(self, images: Sequence[FlowRow]) -> None:
        """Fill in the latents of every image; a cancelled one is left without."""
        images = [image for image in images if not self._is_cancelled(image.index)]
        if not images:
            return
        batch = _Batch(self._model, images, self._pad_id)
        for number in range(max(len(image.moves) for image in images)):
            batch.keep([n for n, image in enumerate(batch.images) if not self._is_cancelled(image.index)])
            if not batch.images:
                return
            times_B, velocities = batch.move(number)
            if self._on_move is not None:
                self._on_move(times_B, velocities, batch.points)
            for image, latents in zip(batch.images, batch.points, strict=True):
                if len(image.moves) == number + 1:
                    image.latents = latents
            batch.keep([n for n, image in enumerate(batch.images) if not image.is_drawn])


class _Batch:
    """What belongs to the images that are still being drawn. points: the latents [B, C, H, Y] as they are now."""

    def __init__(self, model: JanusFlow, images: Sequence[FlowRow], pad_id: int) -> None:
        self._model, self.images = model, list(images)
        self.points = torch.stack([image.noise for image in images]).to(model.device, model.dtype)
        self._bases, self._last_velocities = self.points, torch.zeros_like(self.points)
        self._moves_B4E = _tabulate(images).to(model.dtype).to(model.device)
        self._compose()
        prompts = [self.images[n].ids for n in self._image_of_row.tolist()]
        longest = max(map(len, prompts))
        self._cache = KVCache(model.config.llama, len(prompts), longest, model.dtype, model.device)
        fill_prompts(model, self._cache, prompts, pad_id)

    def _compose(self) -> None:
        model, device = self._model, self._model.device
        self._guidance = Guidance([image.guidance for image in self.images], device)
        of_row = [*range(len(self.images)), *self._guidance.guided]
        self._image_of_row = torch.tensor(of_row, device=device)
        lengths = [len(self.images[n].ids) for n in of_row]
        dropped = [row >= len(self.images) for row in range(len(of_row))]
        self._step = next_block(lengths, dropped, 1 + model.config.num_latent_tokens, device)

    def move(self, number: int) -> tuple[Tensor, Tensor]:
        """Make every image's move of this number. Returns their times [B] and the rows' velocities [R, C, H, Y]."""
        times_B, now, before, is_trial = self._moves_B4E[:, :, number, None, None, None].unbind(1)
        times_B = times_B.flatten()
        velocities = self._model.velocity(
            self.points, times_B, self._step, cache=self._cache, image_of_row=self._image_of_row
        )
        guided = self._guidance.extrapolate(velocities)
        self.points = self._bases + (now * guided + before * self._last_velocities)
        self._bases = torch.where(is_trial.bool(), self._bases, self.points)
        self._last_velocities = guided
        return times_B, velocities

    def keep(self, kept: Sequence[int]) -> None:
        """Take all other images out."""
        if len(kept) == len(self.images):
            return
        rows = [*kept, *(len(self.images) + m for m, n in enumerate(self._guidance.guided) if n in kept)]
        self._cache.rearrange(rows)
        self.images = [self.images[n] for n in kept]
        chosen = torch.tensor(list(kept), dtype=torch.int64, device=self._model.device)
        self.points, self._bases = self.points[chosen], self._bases[chosen]
        self._last_velocities, self._moves_B4E = self._last_velocities[chosen], self._moves_B4E[chosen]
        if self.images:
            self._compose()


def _tabulate(images: Sequence[FlowRow]) -> Tensor:
    """Float64 [B, 4, E]: times, now, before and is_trial of every image's moves, and zeros behind its last."""
    table = torch.zeros(len(images), 4, max(len(image.moves) for image in images), dtype=torch.float64)
    for row, image in zip(table, images, strict=True):
        fields = [[move.time, move.now, move.before, float(move.is_trial)] for move in image.moves]
        row[:, : len(fields)] = torch.tensor(fields, dtype=torch.float64).T
    return table
