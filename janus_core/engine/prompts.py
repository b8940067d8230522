"""Prompts into the cache: each different one is run once, however many rows it has.

Shapes: R rows, U different prompts, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from janus_core.engine.batcher import lay_out, take
from janus_core.engine.cache import KVCache
from janus_core.models.reader import Reader

MAX_PREFILL_TOKENS = 16384


def fill_prompts(model: Reader, cache: KVCache, prompts: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Prefill row r with prompts[r]. Returns every row's last hidden state [R, D]."""
    unique = sorted({tuple(prompt) for prompt in prompts}, key=len)
    where = {prompt: n for n, prompt in enumerate(unique)}
    order = [where[tuple(prompt)] for prompt in prompts]
    once = KVCache(model.llama.config, len(unique), len(unique[-1]), model.dtype, model.device)
    last_UD: list[Tensor] = []
    while len(last_UD) < len(unique):
        first = len(last_UD)
        count = take([len(prompt) for prompt in unique[first:]], len(unique), MAX_PREFILL_TOKENS)
        prefill = lay_out(unique[first : first + count], pad_id, first, model.device)
        hidden_BTD = model.llama(model.llama.embed_tokens(prefill.ids), prefill.step, once)
        last_UD += hidden_BTD[torch.arange(count, device=model.device), prefill.last]
    cache.copy_rows(once, order)
    return torch.stack([last_UD[n] for n in order])
