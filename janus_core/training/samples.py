"""What a model says and draws, as a picture, while it trains."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from janus_core.engine.engine import load_engine
from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest
from janus_core.evaluation.captions import prompt_for
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import sample_scene
from janus_core.training.streams import QUESTIONS

_TILE = 192
_LINE = 46
_COLUMNS = 6


def draw_samples(checkpoint: Path, picture: Path, seed: int) -> None:
    """One row of pictures with the model's captions, two rows of prompts with the model's pictures."""
    engine = load_engine(checkpoint, device="cpu", dtype="float32")
    rng = random.Random(f"samples:{seed}")
    seen = [render(sample_scene(rng), rng, engine.info.image_size) for _ in range(_COLUMNS)]
    captions = engine.caption([CaptionRequest(image, QUESTIONS[0], max_new_tokens=64) for image in seen])
    prompts = [prompt_for(sample_scene(rng), rng) for _ in range(2 * _COLUMNS)]
    drawn = engine.generate([GenerateRequest(prompt, seed=n) for n, prompt in enumerate(prompts)])
    blank = Image.new("RGB", (_TILE, _TILE))
    tiles = [
        (image, said.text if isinstance(said, Caption) else said.message)
        for image, said in zip(seen, captions, strict=True)
    ]
    tiles += [
        (made.image if isinstance(made, GeneratedImage) else blank, prompt)
        for made, prompt in zip(drawn, prompts, strict=True)
    ]
    sheet = Image.new("RGB", (_COLUMNS * _TILE, 3 * (_TILE + _LINE)), "white")
    pen = ImageDraw.Draw(sheet)
    for n, (image, words) in enumerate(tiles):
        left, top = n % _COLUMNS * _TILE, n // _COLUMNS * (_TILE + _LINE)
        sheet.paste(image.resize((_TILE - 4, _TILE - 4), Image.Resampling.NEAREST), (left, top))
        pen.multiline_text((left + 2, top + _TILE - 2), _wrapped(words), fill="black", font_size=11)
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture)


def _wrapped(words: str) -> str:
    return "\n".join(textwrap.wrap(words, 34)[:3])
