"""What fewer bits cost: python benchmarks/int8.py [--model janus-tiny]

The same captions and drawings of the sample world, as float32 answers them greedily, are put before the model in
bfloat16, plain and compiled, and with 8-bit weights. Prints the mean divergence of what they would have said from what
float32 would (KL, nats a token), how often the likeliest token is the same, and how many captions are right.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, load_engine  # noqa: E402
from janus_core.engine.batcher import lay_out  # noqa: E402
from janus_core.engine.rows import CaptionRow, ImageRow  # noqa: E402
from janus_core.evaluation.evaluate import MAX_NEW_TOKENS, QUESTION, stream  # noqa: E402
from janus_core.evaluation.prompts import spread_prompts  # noqa: E402
from janus_core.evaluation.render import render  # noqa: E402
from janus_core.evaluation.scene import sample_scene  # noqa: E402
from janus_core.evaluation.scores import read_answer  # noqa: E402
from janus_core.models.janus import Janus  # noqa: E402

SEED, SCENES, DRAWINGS = 2026, 300, 60
KINDS: dict[str, dict[str, str]] = {
    "bfloat16, plain": {"dtype": "bfloat16", "kernels": "plain"},
    "bfloat16, packed": {"dtype": "bfloat16", "kernels": "packed"},
    "int8": {"dtype": "bfloat16", "kernels": "packed", "quantize": "int8"},
}


@dataclass(frozen=True)
class Said:
    """What float32 answered, and the logits behind it, float32 [tokens, vocabulary]."""

    request: CaptionRequest | GenerateRequest
    answer: Sequence[int]
    logits: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="janus-tiny")
    options = parser.parse_args()
    streams = [stream(SEED, "scene", number) for number in range(SCENES)]
    scenes = [sample_scene(rng) for rng in streams]
    exact = load_engine(options.model, device="cpu", dtype="float32")
    pictures = [render(scene, rng, exact.info.image_size) for scene, rng in zip(scenes, streams, strict=True)]
    questions = [CaptionRequest(picture, QUESTION, MAX_NEW_TOKENS) for picture in pictures]
    prompts = [
        GenerateRequest(prompt, temperature=0.0) for _, prompt in spread_prompts(DRAWINGS, stream(SEED, "prompts"))
    ]
    captions = exact.caption(questions)
    read = [_say(exact, q, a.token_ids) for q, a in zip(questions, captions, strict=True) if isinstance(a, Caption)]
    drawn = [
        _say(exact, request, answer.codes or ())
        for request, answer in zip(prompts, exact.generate(prompts), strict=True)
        if isinstance(answer, GeneratedImage)
    ]
    rows = [("float32", "", "", "", "", _right(captions, scenes))]
    for name, given in KINDS.items():
        engine = load_engine(options.model, device="cpu", **given)  # type: ignore[arg-type]
        right = _right(engine.caption(questions), scenes)
        rows.append((name, *_compare(engine, read), *_compare(engine, drawn), right))
    print("| | captions: KL | same token | drawings: KL | same code | captions right |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _right(answers: Sequence[object], scenes: Sequence[object]) -> str:
    right = sum(
        isinstance(answer, Caption) and read_answer(answer.text) == scene
        for answer, scene in zip(answers, scenes, strict=True)
    )
    return f"{right / len(scenes):.1%} of {len(scenes)}"


def _compare(engine: Engine, said: Sequence[Said]) -> tuple[str, str]:
    """Mean divergence, and the share of equal likeliest tokens."""
    divergences, equal = [], []
    for one in said:
        ours = _logits(engine, one.request, one.answer)
        p, q = one.logits.log_softmax(-1), ours.log_softmax(-1)
        divergences.append((p.exp() * (p - q)).sum(-1))
        equal.append(p.argmax(-1) == q.argmax(-1))
    return f"{float(torch.cat(divergences).mean()):.1e}", f"{float(torch.cat(equal).float().mean()):.2%}"


def _say(engine: Engine, request: CaptionRequest | GenerateRequest, answer: Sequence[int]) -> Said:
    return Said(request, answer, _logits(engine, request, answer))


@torch.inference_mode()
def _logits(engine: Engine, request: CaptionRequest | GenerateRequest, answer: Sequence[int]) -> Tensor:
    """Of every token of an answer, float32, with all before it given."""
    model, row = engine.model, engine.prepare(request)
    assert isinstance(model, Janus)
    if isinstance(row, CaptionRow):
        laid = lay_out([[*row.ids, *answer[:-1]]], 0, model.device)
        features = model.embed_images(row.pixels.to(model.dtype))
        hidden = model.llama(model.embed_prompt(laid.ids, engine.tokenizer.image_id, features), laid.step)
        return model.text_logits(hidden[0, len(row.ids) - 1 :])
    assert isinstance(row, ImageRow)
    laid = lay_out([[*row.ids, *answer[:-1]]], 0, model.device)
    words, codes = model.llama.embed_tokens(laid.ids[:, : len(row.ids)]), torch.tensor([answer[:-1]])
    hidden = model.llama(torch.cat((words, model.embed_codes(codes)), dim=1), laid.step)
    return model.image_logits(hidden[0, len(row.ids) - 1 :])


if __name__ == "__main__":
    main()
