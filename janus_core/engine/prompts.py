"""Prompts of drawings: each different one goes through the model once, and is kept for its next images.

An unconditional prompt depends on its length alone, so one is kept for each length.

Shapes: P prompts, L layers, K key heads, T tokens, E head size, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from janus_core.engine.batcher import lay_out, take
from janus_core.engine.cache import KVCache
from janus_core.models.reader import Reader

MAX_KEPT_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the model made of a prompt.

    keys, values: [L, K, T, E]. last: [D], the hidden state of its last token.
    """

    keys: Tensor
    values: Tensor
    last: Tensor

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes + self.last.nbytes


class PromptBook:
    """The prompts that were asked for last, up to MAX_KEPT_BYTES of them."""

    def __init__(self, model: Reader, pad_id: int, prefill_tokens: int) -> None:
        self._model, self._pad_id, self._prefill_tokens = model, pad_id, prefill_tokens
        self._kept: OrderedDict[tuple[int, ...], Prompt] = OrderedDict()

    def num_unknown(self, prompts: Sequence[Sequence[int]]) -> int:
        """Tokens that `look_up` would have to compute, without padding."""
        return sum(len(ids) for ids in {tuple(prompt) for prompt in prompts} if ids not in self._kept)

    def look_up(self, prompts: Sequence[Sequence[int]]) -> list[Prompt]:
        """Every prompt, in order; those that are not kept are computed together."""
        wanted = [tuple(prompt) for prompt in prompts]
        known = {ids: self._kept[ids] for ids in wanted if ids in self._kept}
        known |= self._compute({ids for ids in wanted if ids not in known})
        self._keep(known)
        return [known[ids] for ids in wanted]

    def forget(self) -> None:
        self._kept.clear()

    def _compute(self, prompts: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], Prompt]:
        computed: dict[tuple[int, ...], Prompt] = {}
        waiting = sorted(prompts, key=lambda ids: (len(ids), ids))
        while waiting:
            count = take([len(ids) for ids in waiting], len(waiting), self._prefill_tokens)
            some = waiting[:count]
            computed |= dict(zip(some, self._prefill(some), strict=True))
            del waiting[:count]
        return computed

    def _prefill(self, prompts: Sequence[tuple[int, ...]]) -> list[Prompt]:
        model = self._model
        cache = KVCache(model.llama.config, len(prompts), len(prompts[-1]), model.llama.cache_dtype, model.device)
        laid = lay_out(prompts, self._pad_id, model.device)
        last_PD = model.llama(model.llama.embed_tokens(laid.ids), laid.step, cache, last_B=laid.last)
        entries = ((*cache.get(n, len(ids)), last_PD[n]) for n, ids in enumerate(prompts))
        return [Prompt(k.clone(), v.clone(), last.clone()) for k, v, last in entries]

    def _keep(self, prompts: dict[tuple[int, ...], Prompt]) -> None:
        for ids, prompt in prompts.items():
            self._kept[ids] = prompt
            self._kept.move_to_end(ids)
        while sum(prompt.num_bytes for prompt in self._kept.values()) > MAX_KEPT_BYTES:
            self._kept.popitem(last=False)
