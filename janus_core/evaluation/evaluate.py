"""What a model makes of the sample world: scenes it captions, prompts it draws, each answer judged right or wrong.

Streams of randomness are named after the evaluation's seed and never after training's: no picture was seen before.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected
from janus_core.evaluation.captions import parse
from janus_core.evaluation.detector import detect
from janus_core.evaluation.partial import matches
from janus_core.evaluation.prompts import spread_prompts
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import Scene, sample_scene
from janus_core.evaluation.scores import read_answer

if TYPE_CHECKING:
    from janus_core.engine.engine import EngineInfo

QUESTION = "Describe this image."
MAX_NEW_TOKENS = 128
KEPT_PICTURES = 12
"""So many pictures of each set of scenes, and of each category of prompts, are kept to be shown."""

_TOGETHER = 64
"""Requests per call of the engine, which are what progress is told by."""

Told = Callable[[str, int, int], None]
"""Hears what is done, how many of it, and of how many."""


class Engine(Protocol):
    """What is asked of an engine, so that tests can stand in for one."""

    @property
    def info(self) -> EngineInfo: ...
    def caption(self, requests: Sequence[CaptionRequest], /) -> list[Caption | Rejected]: ...
    def generate(self, requests: Sequence[GenerateRequest], /) -> list[GeneratedImage | Rejected]: ...


@dataclass(frozen=True)
class Plan:
    """How much is asked, and how. An option of drawing that is None is the engine's own."""

    seed: int = 0
    scenes: int = 200
    prompts: int = 60
    images: int = 4
    guidance: float | None = None
    temperature: float | None = None
    steps: int | None = None

    def drawing(self) -> dict[str, Any]:
        options = {"guidance": self.guidance, "temperature": self.temperature, "steps": self.steps}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Captioned:
    """A scene and what was said of its picture, or the code with which the request was rejected."""

    scene: Scene
    picture: Image.Image | None
    said: str | None = None
    rejected: str | None = None

    @property
    def is_right(self) -> bool:
        """Everything that is to be said, and nothing else."""
        return read_answer(self.said) == self.scene


@dataclass(frozen=True)
class Drawn:
    """A prompt and the scene that the detector saw in what was drawn, or the code of a rejection."""

    category: str
    prompt: str
    picture: Image.Image | None
    seen: Scene | None = None
    rejected: str | None = None

    @property
    def is_right(self) -> bool:
        """The objects that were asked for, as and where they were, and no others."""
        said = parse(self.prompt)
        return said is not None and self.seen is not None and matches(said, self.seen)


@dataclass(frozen=True)
class Evaluation:
    """Every answer, in the order of the questions."""

    info: EngineInfo
    plan: Plan
    seen: list[Captioned]
    held_out: list[Captioned]
    drawn: list[Drawn]
    captioning_seconds: float
    generation_seconds: float


def evaluate(engine: Engine, plan: Plan, told: Told = lambda what, done, total: None) -> Evaluation:
    """Ask everything that was planned, and judge the answers."""
    start = time.monotonic()
    seen = _caption(engine, plan, False, told)
    held_out = _caption(engine, plan, True, told)
    middle = time.monotonic()
    drawn = _draw(engine, plan, told)
    return Evaluation(engine.info, plan, seen, held_out, drawn, middle - start, time.monotonic() - middle)


def stream(seed: int, *names: object) -> random.Random:
    """The randomness of one question, whatever else is asked."""
    name = ":".join(map(str, ("evaluate", seed, *names)))
    return random.Random(hashlib.sha256(name.encode()).digest())  # noqa: S311 - nobody's secret


def _caption(engine: Engine, plan: Plan, held_out: bool, told: Told) -> list[Captioned]:
    name = "captions of held-out combinations" if held_out else "captions"
    captioned: list[Captioned] = []
    for first in range(0, plan.scenes, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, plan.scenes))
        streams = [stream(plan.seed, "held out" if held_out else "scene", number) for number in numbers]
        scenes = [sample_scene(rng, held_out=held_out) for rng in streams]
        pictures = [render(s, rng, engine.info.image_size) for s, rng in zip(scenes, streams, strict=True)]
        answers = engine.caption([CaptionRequest(p, QUESTION, MAX_NEW_TOKENS) for p in pictures])
        for scene, picture, answer in zip(scenes, pictures, answers, strict=True):
            kept = picture if len(captioned) < KEPT_PICTURES else None
            said, code = (answer.text, None) if isinstance(answer, Caption) else (None, answer.code)
            captioned.append(Captioned(scene, kept, said, code))
        told(name, len(captioned), plan.scenes)
    return captioned


def _draw(engine: Engine, plan: Plan, told: Told) -> list[Drawn]:
    asked = [
        (category, prompt, stream(plan.seed, "image", number, copy).getrandbits(32))
        for number, (category, prompt) in enumerate(spread_prompts(plan.prompts, stream(plan.seed, "prompts")))
        for copy in range(plan.images)
    ]
    drawn: list[Drawn] = []
    kept: Counter[str] = Counter()
    for first in range(0, len(asked), _TOGETHER):
        some = asked[first : first + _TOGETHER]
        requests = [GenerateRequest(prompt, seed, **plan.drawing()) for _, prompt, seed in some]
        for (category, prompt, _), answer in zip(some, engine.generate(requests), strict=True):
            kept[category] += 1
            drawn.append(_judge(category, prompt, answer, is_kept=kept[category] <= KEPT_PICTURES))
        told("images", len(drawn), len(asked))
    return drawn


def _judge(category: str, prompt: str, answer: GeneratedImage | Rejected, *, is_kept: bool) -> Drawn:
    if isinstance(answer, Rejected):
        return Drawn(category, prompt, None, rejected=answer.code)
    return Drawn(category, prompt, answer.image if is_kept else None, detect(answer.image))
