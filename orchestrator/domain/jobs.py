"""A job: its kind, its options, the states it goes through, and what it counts."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.domain.errors import InvalidRequest

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_SEED = 2**63 - 1
MAX_PROMPT_LENGTH = 20_000  # characters; longer ones are no prompt, and tokenising them takes seconds


class JobKind(enum.StrEnum):
    caption = "caption"
    generate = "generate"


class JobState(enum.StrEnum):
    """accepted -> running -> finishing -> completed | cancelled; accepted -> failed."""

    accepted = "accepted"  # its input is being read
    running = "running"
    finishing = "finishing"  # results are being merged
    completed = "completed"
    cancelled = "cancelled"
    failed = "failed"  # its input could not be read

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobState.completed, JobState.cancelled, JobState.failed})


@dataclass(frozen=True)
class CaptionOptions:
    """How every item of a captioning job is asked, unless the item says otherwise."""

    __pydantic_config__ = {"extra": "forbid"}  # read by the wire schemas only  # noqa: RUF012

    prompt: str = "Describe this image."
    max_tokens: int = 512
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    seed: int = 0

    def __post_init__(self) -> None:
        _check(bool(self.prompt.strip()), "options.prompt is empty; ask something, such as 'Describe this image.'")
        _check(
            len(self.prompt) <= MAX_PROMPT_LENGTH,
            f"options.prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_LENGTH} are accepted",
        )
        _check(1 <= self.max_tokens <= 4096, f"options.max_tokens is {self.max_tokens}; it must be 1 to 4096")
        _check_temperature(self.temperature)
        _check_sampling(self.top_p, self.top_k, self.seed)

    @property
    def seeds_per_item(self) -> int:
        return 1


@dataclass(frozen=True)
class GenerateOptions:
    """How every item of a generation job is drawn, unless the item says otherwise."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    images: int = 1  # pictures for each prompt
    guidance: float | None = None  # None is what is usual with the model
    temperature: float | None = None  # as is guidance
    top_p: float = 1.0
    top_k: int = 0
    steps: int | None = None  # JanusFlow only, as is the solver
    solver: Literal["euler", "heun"] = "euler"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(1 <= self.images <= 64, f"options.images is {self.images}; it must be 1 to 64")
        _check(
            self.guidance is None or (math.isfinite(self.guidance) and 0 <= self.guidance <= 100),
            f"options.guidance is {self.guidance}; it must be 0 to 100",
        )
        _check(self.steps is None or 1 <= self.steps <= 1000, f"options.steps is {self.steps}; it must be 1 to 1000")
        _check(self.solver in ("euler", "heun"), f"options.solver is {self.solver!r}; it must be 'euler' or 'heun'")
        if self.temperature is not None:
            _check_temperature(self.temperature)
        _check_sampling(self.top_p, self.top_k, self.seed)

    @property
    def seeds_per_item(self) -> int:
        return self.images


Options = CaptionOptions | GenerateOptions


def options_for(kind: JobKind, values: dict[str, Any]) -> Options:
    """The options of a stored job."""
    return CaptionOptions(**values) if kind is JobKind.caption else GenerateOptions(**values)


def seed_of(options: Options, index: int, item_seed: int | None) -> int:
    """The seed of an item's first answer; image k of an item adds k.

    Items of a job never share a seed: item `index` starts at `options.seed + index * images`.
    """
    if item_seed is not None:
        return item_seed
    return (options.seed + index * options.seeds_per_item) % (MAX_SEED + 1)


@dataclass(frozen=True)
class Counts:
    """What became of a job's items; `finished` of them have a result or a failure."""

    total: int
    results: int
    failures: int
    cancelled: int = 0

    @property
    def finished(self) -> int:
        return self.results + self.failures

    @property
    def balanced(self) -> bool:
        """The promise: every accepted item ended exactly once."""
        return self.results + self.failures + self.cancelled == self.total


def _check_temperature(temperature: float) -> None:
    _check(
        math.isfinite(temperature) and 0 <= temperature <= 100,
        f"options.temperature is {temperature}; it must be 0 (greedy) to 100",
    )


def _check_sampling(top_p: float, top_k: int, seed: int) -> None:
    _check(0 < top_p <= 1, f"options.top_p is {top_p}; it must be above 0 and at most 1")
    _check(0 <= top_k < 2**31, f"options.top_k is {top_k}; it must be 0 (off) to {2**31 - 1}")
    _check(0 <= seed <= MAX_SEED, f"options.seed is {seed}; it must be 0 to {MAX_SEED}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidRequestValue(message)


class InvalidRequestValue(InvalidRequest, ValueError):
    """A `ValueError` too, so that the wire schemas report it beside their own findings."""
