"""What transformers' own Janus answers, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janus_core import CaptionRequest, Engine, GenerateRequest
from janus_core.processing import chat


def load_reference(folder: Path, **options: Any) -> Any:
    """transformers' model of a checkpoint in the Hugging Face layout, with nothing missing and nothing left over."""
    from transformers import JanusForConditionalGeneration

    model, report = JanusForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values()), report
    assert model.lm_head.weight is not model.model.language_model.embed_tokens.weight
    return model.eval()


def reference_captions(model: Any, engine: Engine, requests: list[CaptionRequest]) -> list[list[int]]:
    """Greedy token ids of each request alone, up to the end of the answer."""
    answers = []
    for request in requests:
        row = engine.prepare_caption(request)
        assert not hasattr(row, "code")
        ids = torch.tensor([row.ids])  # type: ignore[union-attr]
        generated: Tensor = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=row.pixels,  # type: ignore[union-attr]
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            eos_token_id=engine.tokenizer.eos_id,
            pad_token_id=engine.tokenizer.eos_id,
            use_cache=True,
        )
        new = generated[0, ids.shape[1] :].tolist()
        answers.append(new[: new.index(engine.tokenizer.eos_id)] if engine.tokenizer.eos_id in new else new)
    return answers


def reference_codes(model: Any, engine: Engine, requests: list[GenerateRequest]) -> list[list[int]]:
    """Greedy image codes of each request alone."""
    answers = []
    for request in requests:
        ids = torch.tensor([engine.tokenizer.encode(chat.image_prompt(request.prompt, engine.roles))])
        codes = model.generate(
            inputs=ids,
            attention_mask=torch.ones_like(ids),
            generation_mode="image",
            do_sample=False,
            guidance_scale=request.guidance,
        )
        answers.append(codes[0].tolist())
    return answers
