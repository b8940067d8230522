"""Pixels, prompts and ids, equal to the official processor's."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from janus_core import CaptionRequest, Engine, load_engine
from janus_core.processing import chat
from janus_core.processing.images import fit, prepare

from .conftest import GOLDEN, expected

QUESTIONS = (
    "Describe the image in detail.",
    "<image_placeholder> is Figure 1.\n<image_placeholder> is Figure 2.\nWhich image is brighter?",
)
DRAWING = "a cat sits on a table near a window."
TEXT = json.loads((GOLDEN / "expected" / "text.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(5))
def test_pixels_are_bit_equal_to_the_official_ones(golden: Engine, pictures: list[Image.Image], number: int) -> None:
    pixels = expected("preprocess")
    clip = dataclasses.replace(
        golden.images,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    for name, settings in (("pixel_values", golden.images), ("pixel_values_clip_default", clip)):
        ours = torch.from_numpy(prepare(pictures[number], settings))
        assert torch.equal(ours, pixels[name][number]), name
        fitted = torch.from_numpy(prepare(fit(pictures[number], settings), settings))
        assert torch.equal(fitted, pixels[name][number]), name


def test_a_fitted_picture_has_the_pixels_and_the_caption_of_the_original(
    golden: Engine, pictures: list[Image.Image]
) -> None:
    random = np.random.default_rng(7)
    sizes = [(1, 1), (1, 5000), (5000, 1), *random.integers(1, 700, (40, 2)).tolist()]
    drawn = [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    for image in [*pictures, *drawn]:
        fitted = fit(image, golden.images)
        assert fitted.size == (golden.info.image_size, golden.info.image_size)
        assert np.array_equal(prepare(fitted, golden.images), prepare(image, golden.images))
    originals = golden.caption([CaptionRequest(image, "What is it?", max_new_tokens=4) for image in pictures])
    fitted_too = [CaptionRequest(fit(image, golden.images), "What is it?", max_new_tokens=4) for image in pictures]
    assert golden.caption(fitted_too) == originals


@pytest.mark.parametrize("number", range(2))
def test_captioning_prompt_and_ids(golden: Engine, number: int) -> None:
    prompt = chat.caption_prompt(QUESTIONS[number], golden.roles)
    assert prompt == TEXT["sft_format"][number]
    ids = golden.tokenizer.expand_images(golden.tokenizer.encode(prompt), 16)
    assert ids == expected("understand")[f"s{number}.input_ids"][0].tolist()


def test_drawing_prompt_and_ids(golden: Engine) -> None:
    prompt = chat.image_prompt(DRAWING, golden.roles)
    assert prompt == TEXT["t2i_prompt"]
    assert golden.tokenizer.encode(prompt) == expected("t2i")["prompt_ids"].tolist()


def test_plain_roles_change_the_role_words_and_nothing_else() -> None:
    plain = load_engine(GOLDEN / "model", device="cpu", dtype="float32", roles="plain")
    assert (plain.info.family, plain.info.dtype, plain.info.max_positions) == ("janus", "float32", 4096)
    for question, bracketed in zip(QUESTIONS, TEXT["sft_format"], strict=True):
        wanted = bracketed.replace("<|User|>", "User").replace("<|Assistant|>", "Assistant")
        assert chat.caption_prompt(question, plain.roles) == wanted
    assert chat.image_prompt(" a cat ", plain.roles) == "User: a cat\n\nAssistant:<begin_of_image>"


def test_special_ids_and_decoded_text(golden: Engine) -> None:
    tokenizer = golden.tokenizer
    ids = {"image_id": tokenizer.image_id, "image_start_id": tokenizer.image_start_id}
    ids |= {"image_end_id": tokenizer.image_end_id, "pad_id": tokenizer.pad_id}
    assert ids == TEXT["special_token_ids"]
    assert tokenizer.decode(expected("understand")["s0.generated"][0].tolist()) == TEXT["s0_decoded"]
