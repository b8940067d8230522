"""What goes into the engine and what comes out; plain values, no torch.

Codes of `Rejected`: option_invalid, prompt_empty, prompt_not_unicode, prompt_too_long, prompt_has_image_mark,
image_count_mismatch, image_unreadable, noise_unsupported, noise_invalid, cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_GUIDANCE = 100.0
MAX_TEMPERATURE = 100.0
MAX_STEPS = 1000


@dataclass(frozen=True)
class CaptionRequest:
    """A question about one or several images.

    prompt: with as many `<image_placeholder>` marks as images, or none for a single image, which then stands in front.
    max_new_tokens: ends the answer; so does the model's context of 4096 tokens, whichever comes first.
    temperature: 0 is greedy. top_k: 0 is off; top_p: 1 is off.
    seed: of this request's own random stream.
    prefix: how the answer begins; the model goes on from there. Its tokens count as the answer's.
    avoid: words and phrases that the model does not add to it; see engine/filters.py for what counts as one.
    min_new_tokens: the model does not end the answer before it.
    """

    image: Image | Sequence[Image]
    prompt: str
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    prefix: str = ""
    avoid: Sequence[str] = ()
    min_new_tokens: int = 0


@dataclass(frozen=True)
class GenerateRequest:
    """An image to be drawn.

    guidance: how far to move from the unconditional answer towards the prompt's; 1 skips the unconditional half. None
        is the checkpoint's own, or else its family's: 5 for Janus and Janus-Pro, 2 for JanusFlow.
    temperature, top_p, top_k: of Janus and Janus-Pro; JanusFlow ignores them. A temperature of None is the
        checkpoint's own, or else 1.
    steps, solver: of JanusFlow, the others ignore them. Steps from noise to picture, 30 unless given; "heun" asks the
        model twice a step, for fewer steps.
    noise: of JanusFlow, the others reject it. Floats [latent channels, height, width] to begin with, in place of those
        that are drawn from `seed`.
    """

    prompt: str
    seed: int = 0
    guidance: float | None = None
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    steps: int | None = None
    solver: Literal["euler", "heun"] = "euler"
    noise: Any = None


@dataclass(frozen=True)
class Caption:
    """token_ids: without the end-of-sentence. finish_reason: "stop" at the end-of-sentence, else "length"."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class GeneratedImage:
    """codes: the image tokens, row by row; None for JanusFlow."""

    image: Image
    codes: tuple[int, ...] | None


@dataclass(frozen=True)
class Rejected:
    """What could not be served: `code` for programs, `message` for people, saying what to do."""

    code: str
    message: str


def find_fault(request: CaptionRequest | GenerateRequest) -> Rejected | None:
    """Whatever can be said against a request without looking at its image or the model."""
    if not isinstance(request.prompt, str) or not request.prompt.strip():
        return Rejected("prompt_empty", "The prompt is empty. Say what to do with the image, or what to draw.")
    try:
        request.prompt.encode()
    except UnicodeEncodeError:
        return Rejected(
            "prompt_not_unicode", "The prompt holds half a surrogate pair. Decode it properly and try again."
        )
    if not (_is_number(request.top_p) and 0 < request.top_p <= 1):
        return _bad("top_p", request.top_p, "above 0 and at most 1 (off)")
    if not (_is_whole(request.top_k) and 0 <= request.top_k < 2**31):
        return _bad("top_k", request.top_k, "a whole number from 0 (off) to 2**31 - 1")
    if not (_is_whole(request.seed) and 0 <= request.seed < 2**63):
        return _bad("seed", request.seed, "a whole number from 0 to 2**63 - 1")
    if isinstance(request, CaptionRequest):
        if not (_is_number(request.temperature) and 0 <= request.temperature <= MAX_TEMPERATURE):
            return _bad("temperature", request.temperature, f"a number from 0 (greedy) to {MAX_TEMPERATURE:g}")
        if not (_is_whole(request.max_new_tokens) and request.max_new_tokens >= 1):
            return _bad("max_new_tokens", request.max_new_tokens, "a whole number, 1 or more")
        return _find_filter_fault(request)
    return _find_drawing_fault(request)


def _find_filter_fault(request: CaptionRequest) -> Rejected | None:
    if not (_is_whole(request.min_new_tokens) and 0 <= request.min_new_tokens <= request.max_new_tokens):
        return _bad("min_new_tokens", request.min_new_tokens, "a whole number from 0 to max_new_tokens")
    if not _is_text(request.prefix):
        return _bad("prefix", request.prefix, "text")
    phrases = request.avoid
    if isinstance(phrases, str) or not all(_is_text(phrase) and phrase.strip() for phrase in phrases):
        return _bad("avoid", phrases, "a list of words and phrases, none of them blank")
    return None


def _find_drawing_fault(request: GenerateRequest) -> Rejected | None:
    if request.guidance is not None and not (_is_number(request.guidance) and 0 <= request.guidance <= MAX_GUIDANCE):
        return _bad("guidance", request.guidance, f"a number from 0 to {MAX_GUIDANCE:g}, or None for the usual")
    temperature = request.temperature
    if temperature is not None and not (_is_number(temperature) and 0 <= temperature <= MAX_TEMPERATURE):
        return _bad(
            "temperature", temperature, f"a number from 0 (greedy) to {MAX_TEMPERATURE:g}, or None for the usual"
        )
    if request.steps is not None and not (_is_whole(request.steps) and 1 <= request.steps <= MAX_STEPS):
        return _bad("steps", request.steps, f"a whole number from 1 to {MAX_STEPS}, or None for the usual")
    if request.solver not in ("euler", "heun"):
        return _bad("solver", request.solver, "'euler' or 'heun'")
    return None


def _bad(name: str, value: object, wanted: str) -> Rejected:
    return Rejected("option_invalid", f"{name} is {value!r}; it must be {wanted}.")


def _is_text(value: object) -> bool:
    """Without half a surrogate pair."""
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
