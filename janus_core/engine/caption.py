"""Captions: prefill prompts with image features, then one token per row and step, refilling rows as answers end.

Shapes: B rows, T tokens, D width, V vocabulary. Active rows are always the first cache rows, in the order of `_active`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from janus_core.engine.batcher import lay_out, next_step, take
from janus_core.engine.cache import KVCache, fill_holes
from janus_core.engine.prompts import MAX_PREFILL_TOKENS
from janus_core.engine.sampling import Picker, Sampling, draw_stream
from janus_core.models.reader import Reader


@dataclass(eq=False)
class CaptionRow:
    """A prompt and the answer as it grows.

    ids: with image placeholders expanded. pixels: float32 [images, 3, S, S].
    tokens: the answer so far, without end-of-sentence. finish_reason: None while it grows, or when it was cancelled.
    """

    index: int
    ids: list[int]
    pixels: Tensor
    max_new_tokens: int
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None
    stream: list[float] = field(default_factory=list)

    @property
    def num_positions(self) -> int:
        """Cache positions at most; the last token is never fed back."""
        return len(self.ids) + self.max_new_tokens - 1

    def accept(self, token: int, eos_id: int) -> None:
        if token == eos_id:
            self.finish_reason = "stop"
            return
        self.tokens.append(token)
        if len(self.tokens) == self.max_new_tokens:
            self.finish_reason = "length"


class Captioner:
    """One call's worth of captions. `on_logits` may watch: every step, the rows and their logits, float32 [rows, V]."""

    def __init__(
        self,
        model: Reader,
        *,
        image_id: int,
        eos_id: int,
        num_rows: int,
        is_cancelled: Callable[[int], bool],
        on_logits: Callable[[Sequence[CaptionRow], Tensor], None] | None = None,
    ) -> None:
        self._model, self._image_id, self._eos_id = model, image_id, eos_id
        self._num_rows, self._is_cancelled, self._on_logits = num_rows, is_cancelled, on_logits
        self._active: list[CaptionRow] = []

    @torch.inference_mode()
    def run(self, rows: Sequence[CaptionRow]) -> None:
        """Fill in the answer of every row; a cancelled one is left without a finish reason."""
        waiting = deque(rows)
        num_rows = min(self._num_rows, len(rows))
        capacity = max(row.num_positions for row in rows)
        self._active = []
        cache = KVCache(self._model.llama.config, num_rows, capacity, self._model.dtype, self._model.device)
        while waiting or self._active:
            self._leave(cache, [row for row in self._active if self._is_cancelled(row.index)])
            if waiting and len(self._active) < num_rows:
                room = num_rows - len(self._active)
                count = take([len(row.ids) for row in islice(waiting, room)], room, MAX_PREFILL_TOKENS)
                admitted = [waiting.popleft() for _ in range(count)]
                self._prefill(cache, [row for row in admitted if not self._is_cancelled(row.index)])
            elif self._active:
                self._step(cache)
            self._leave(cache, [row for row in self._active if row.finish_reason])

    def _prefill(self, cache: KVCache, rows: list[CaptionRow]) -> None:
        if not rows:
            return
        model, first = self._model, len(self._active)
        prefill = lay_out([row.ids for row in rows], self._eos_id, first, model.device)
        pixels = torch.cat([row.pixels for row in rows]).to(model.device, model.dtype)
        embeddings = model.embed_prompt(prefill.ids, self._image_id, model.embed_images(pixels))
        hidden_BTD = model.llama(embeddings, prefill.step, cache)
        last_BD = hidden_BTD[torch.arange(len(rows), device=model.device), prefill.last]
        for row in rows:
            row.stream = draw_stream(row.sampling, row.max_new_tokens).tolist()
        self._active += rows
        self._pick(rows, last_BD, Picker([row.sampling for row in rows], model.device))
        self._picker = Picker([row.sampling for row in self._active], model.device)

    def _step(self, cache: KVCache) -> None:
        model, rows = self._model, self._active
        newest = torch.tensor([row.tokens[-1] for row in rows], device=model.device)
        positions = [len(row.ids) + len(row.tokens) - 1 for row in rows]
        step = next_step(torch.tensor(positions, device=model.device), max(positions) + 1)
        hidden_BTD = model.llama(model.llama.embed_tokens(newest)[:, None], step, cache)
        self._pick(rows, hidden_BTD.flatten(0, 1), self._picker)

    def _pick(self, rows: Sequence[CaptionRow], hidden_BD: Tensor, picker: Picker) -> None:
        logits_BV = self._model.text_logits(hidden_BD)
        if self._on_logits is not None:
            self._on_logits(rows, logits_BV)
        uniforms = torch.tensor([row.stream[len(row.tokens)] for row in rows], dtype=torch.float64)
        for row, token in zip(rows, picker(logits_BV, uniforms).tolist(), strict=True):
            row.accept(token, self._eos_id)

    def _leave(self, cache: KVCache, rows: Sequence[CaptionRow]) -> None:
        """Take rows out of the batch and close their holes in the cache."""
        if rows:
            order = fill_holes(len(self._active), [self._active.index(row) for row in rows])
            cache.rearrange(order)
            self._active = [self._active[n] for n in order]
            self._picker = Picker([row.sampling for row in self._active], self._model.device)
