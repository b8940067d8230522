"""Who else does it: transformers, and the published loop on transformers' modules.

Both get the checkpoint as `from_pretrained` gives it. The published loop is written anew here, for measuring only: one
prompt in parallel copies, a growing cache, the whole head on the last position, nothing compiled.

Shapes: B copies, T tokens, D width, C image codes.
Source: deepseek-ai/Janus@1daa72f generation_inference.py:50-118, inference.py:45-66.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janus_core.bench.cases import Case, Timing
from janus_core.bench.clock import now
from janus_core.bench.inputs import Inputs
from janus_core.engine.painters import TOKEN_GUIDANCE


def load_peer(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' Janus of a checkpoint in the Hugging Face layout."""
    from transformers import JanusForConditionalGeneration

    model: Any = JanusForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model.to(device).eval()


class Transformers:
    """Its own `generate`; steps are told apart by the calls of its language model."""

    name = "transformers"

    def __init__(self, model: Any, inputs: Inputs) -> None:
        self._model, self._inputs = model, inputs

    @torch.inference_mode()
    def run(self, case: Case) -> Timing:
        ticks: list[float] = []
        device = self._model.device
        hook = self._model.model.language_model.register_forward_hook(lambda *_: ticks.append(now(device)))
        began = now(self._model.device)
        try:
            tokens = self._draw(case) if case.task == "generate" else self._caption(case)
        finally:
            hook.remove()
        ends = [*ticks[1:], now(self._model.device)]  # a token is chosen between two calls
        steps = [end - start for start, end in zip(ticks, ends, strict=True)][: case.num_tokens - 1]
        return Timing(ticks[0] - began, steps, tokens.tolist())

    def _draw(self, case: Case) -> Tensor:
        ids = torch.tensor([self._inputs.drawing(case)] * case.batch, device=self._model.device)
        tower = self._model.model.vision_model.config
        usual, tower.num_image_tokens = tower.num_image_tokens, case.num_tokens
        try:
            codes: Tensor = self._model.generate(
                inputs=ids,
                attention_mask=torch.ones_like(ids),
                generation_mode="image",
                do_sample=False,
                guidance_scale=TOKEN_GUIDANCE,
            )
        finally:
            tower.num_image_tokens = usual
        return codes

    def _caption(self, case: Case) -> Tensor:
        ids, pixels = self._inputs.question(case)
        answers: Tensor = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            min_new_tokens=case.num_tokens,
            max_new_tokens=case.num_tokens,
            do_sample=False,
            eos_token_id=self._inputs.eos_id,
            pad_token_id=self._inputs.eos_id,
        )
        return answers[:, ids.shape[1] :]


class OfficialStyle:
    name = "official-style"

    def __init__(self, model: Any, inputs: Inputs) -> None:
        self._model, self._inputs = model, inputs

    @torch.inference_mode()
    def run(self, case: Case) -> Timing:
        began = now(self._model.device)
        embeddings = self._drawing(case) if case.task == "generate" else self._question(case)
        cache, chosen, ticks = None, [], []
        for _ in range(case.num_tokens):
            out = self._model.model.language_model(inputs_embeds=embeddings, use_cache=True, cache=cache)
            cache = out.cache
            tokens = self._choose(case, out.last_hidden_state)
            chosen.append(tokens)
            embeddings = self._embed(case, tokens)
            ticks.append(now(self._model.device))
        steps = [end - start for start, end in pairwise(ticks)]
        return Timing(ticks[0] - began, steps, torch.stack(chosen, dim=1).tolist())

    def _drawing(self, case: Case) -> Tensor:
        ids = torch.tensor([self._inputs.drawing(case)] * (2 * case.batch), device=self._model.device)
        ids[1::2, 1:-1] = self._inputs.pad_id
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings

    def _question(self, case: Case) -> Tensor:
        ids, pixels = self._inputs.question(case)
        features = self._model.model.get_image_features(pixels).pooler_output
        places = ids == self._inputs.image_id
        embeddings: Tensor = self._model.get_input_embeddings()(ids.masked_fill(places, 0))
        mixed: Tensor = embeddings.masked_scatter(places[..., None], features.to(embeddings.dtype))
        return mixed

    def _choose(self, case: Case, hidden_BTD: Tensor) -> Tensor:
        if case.task == "caption":
            logits = self._model.lm_head(hidden_BTD)[:, -1, :]
            logits[:, self._inputs.eos_id] = -torch.inf  # so that every answer has its length
            words: Tensor = logits.argmax(-1)
            return words
        logits_BC = self._model.model.generation_head(hidden_BTD[:, -1, :])
        conditional, unconditional = logits_BC[0::2], logits_BC[1::2]
        codes: Tensor = (unconditional + TOKEN_GUIDANCE * (conditional - unconditional)).argmax(-1)
        return codes

    def _embed(self, case: Case, tokens_B: Tensor) -> Tensor:
        if case.task == "caption":
            words: Tensor = self._model.get_input_embeddings()(tokens_B)
            return words[:, None]
        codes: Tensor = self._model.prepare_embeddings_for_image_generation(tokens_B.repeat_interleave(2)[:, None])
        return codes
