"""Captions: features, embeddings, logits of every step and greedy ids, equal to the official code's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_core import Caption, CaptionRequest, Engine
from janus_core.engine.batcher import lay_out
from janus_core.engine.rows import CaptionRow
from janus_core.engine.token_lane import TokenLane, Watch

from .conftest import answer, expected
from .test_golden_processing import QUESTIONS, TEXT

TOLERANCE = 1e-4
BF16_TOLERANCE = 0.06
"""Logits reach 4 and bf16 keeps 8 bits; 0.047 was measured, and the official bf16 and float32 are 0.055 apart."""
EOS = 321


def requests(pictures: list[Image.Image]) -> list[CaptionRequest]:
    return [
        CaptionRequest(pictures[1], QUESTIONS[0], max_new_tokens=24),
        CaptionRequest([pictures[2], pictures[4]], QUESTIONS[1], max_new_tokens=24),
    ]


def prepared(engine: Engine, pictures: list[Image.Image]) -> list[CaptionRow]:
    rows = [engine.prepare_caption(request) for request in requests(pictures)]
    assert all(isinstance(row, CaptionRow) for row in rows)
    return [row for row in rows if isinstance(row, CaptionRow)]


def watch(engine: Engine, rows: Sequence[CaptionRow]) -> list[Tensor]:
    """Caption rows together; of each the logits of every step, [steps, V]."""
    seen: dict[CaptionRow, list[Tensor]] = {row: [] for row in rows}

    def keep(active: Sequence[CaptionRow], logits: Tensor) -> None:
        for row, row_logits in zip(active, logits, strict=True):
            seen[row].append(row_logits.clone())

    tokenizer = engine.tokenizer
    lane = TokenLane(
        engine.model,
        image_id=tokenizer.image_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        max_slots=8,
        max_rows=8,
        watch=Watch(on_text=keep),
    )
    answer(lane, rows)
    return [torch.stack(seen[row]) for row in rows]


def without_end(generated: Tensor) -> list[int]:
    ids: list[int] = generated.tolist()
    return ids[: ids.index(EOS)] if EOS in ids else ids


@torch.inference_mode()
def test_tower_aligner_and_text_logits(golden: Engine) -> None:
    want, model = expected("understand"), golden.model
    pixels = want["s0.pixel_values"][0]
    torch.testing.assert_close(model.vision(pixels), want["s0.vit.out"], rtol=0, atol=TOLERANCE)
    features = model.embed_images(pixels)
    torch.testing.assert_close(features, want["s0.aligner.out"], rtol=0, atol=TOLERANCE)
    embeddings = model.embed_prompt(want["s0.input_ids"], golden.tokenizer.image_id, features)
    hidden = model.llama(embeddings, lay_out(want["s0.input_ids"].tolist(), 0, model.device).step)
    torch.testing.assert_close(hidden, want["s0.hidden_arange_pos"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(model.text_logits(hidden[0]), want["s0.text_logits"][0], rtol=0, atol=TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("number", range(2))
def test_prompt_embeddings(golden: Engine, pictures: list[Image.Image], number: int) -> None:
    want, row = expected("understand"), prepared(golden, pictures)[number]
    assert torch.equal(row.pixels, want[f"s{number}.pixel_values"][0])
    features = golden.model.embed_images(row.pixels)
    ours = golden.model.embed_prompt(torch.tensor([row.ids]), golden.tokenizer.image_id, features)[0]
    torch.testing.assert_close(ours, want[f"s{number}.inputs_embeds"][0], rtol=0, atol=TOLERANCE)
    in_batch = want["batch.inputs_embeds"][number][want["batch.attention_mask"][number].bool()]
    torch.testing.assert_close(ours, in_batch, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("number", range(2))
def test_step_logits_alone(golden: Engine, pictures: list[Image.Image], number: int) -> None:
    want = expected("understand")
    (logits,) = watch(golden, [prepared(golden, pictures)[number]])
    torch.testing.assert_close(logits, want[f"s{number}.step_logits"][0], rtol=0, atol=TOLERANCE)


def test_step_logits_in_a_padded_batch(golden: Engine, pictures: list[Image.Image]) -> None:
    want = expected("understand")["batch.step_logits"]
    logits = watch(golden, prepared(golden, pictures))
    assert [len(logits[0]), len(logits[1])] == [5, 24]
    for number in range(2):
        ours = logits[number]
        torch.testing.assert_close(ours, want[number][: len(ours)], rtol=0, atol=TOLERANCE)


def test_captions_alone_and_in_a_padded_batch(golden: Engine, pictures: list[Image.Image]) -> None:
    want = expected("understand")
    together = golden.caption(requests(pictures))
    alone = [golden.caption([request])[0] for request in requests(pictures)]
    assert together == alone
    for number, caption in enumerate(together):
        assert isinstance(caption, Caption)
        assert list(caption.token_ids) == without_end(want[f"s{number}.generated"][0])
        assert list(caption.token_ids) == without_end(want["batch.generated"][number])
    assert [caption.finish_reason for caption in together if isinstance(caption, Caption)] == ["stop", "length"]
    assert isinstance(together[0], Caption)
    assert together[0].text == TEXT["s0_decoded"]


@torch.inference_mode()
def test_bfloat16(golden_bf16: Engine, pictures: list[Image.Image]) -> None:
    want, model = expected("understand_bf16"), golden_bf16.model
    row = prepared(golden_bf16, pictures)[0]
    pixels = row.pixels.to(model.dtype)
    assert torch.equal(pixels, want["pixel_values"][0])
    features = model.embed_images(pixels)
    embeddings = model.embed_prompt(torch.tensor([row.ids]), golden_bf16.tokenizer.image_id, features)
    assert torch.equal(embeddings, want["inputs_embeds"])
    hidden = model.llama(embeddings, lay_out([row.ids], 0, model.device).step)
    logits = model.text_logits(hidden[0])
    torch.testing.assert_close(logits, want["text_logits"][0].float(), rtol=0, atol=BF16_TOLERANCE)
