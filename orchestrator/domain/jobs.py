"""A job: its kind, its options, the states it goes through, and what it counts."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from orchestrator.domain.errors import InvalidRequest

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_SEED = 2**63 - 1
ITEM_FIELDS = frozenset({"prompt", "seed"})  # options that an item has fields for
MAX_PREFIX_LENGTH = 2000  # characters, as is a phrase's
MAX_PHRASES, MAX_PHRASE_LENGTH = 100, 100
MAX_PROMPT_LENGTH = 20_000  # characters; longer ones are no prompt, and tokenising them takes seconds


class JobKind(enum.StrEnum):
    caption = "caption"
    generate = "generate"


class JobState(enum.StrEnum):
    """accepted -> running -> finishing -> completed | cancelled | expired; accepted -> failed."""

    accepted = "accepted"  # its input is being read
    running = "running"
    finishing = "finishing"  # results are being merged
    completed = "completed"
    cancelled = "cancelled"
    expired = "expired"  # its deadline passed
    failed = "failed"  # its input could not be read

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobState.completed, JobState.cancelled, JobState.expired, JobState.failed})


@dataclass(frozen=True)
class CaptionOptions:
    """How every item of a captioning job is asked, unless the item says otherwise."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # read by the wire schemas only

    prompt: str = "Describe this image."
    prefix: str = ""  # how every answer begins
    avoid: tuple[str, ...] = ()  # words and phrases that the model does not say
    min_tokens: int = 0
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
        _check_text("options.prefix", self.prefix, MAX_PREFIX_LENGTH)
        _check(isinstance(self.avoid, list | tuple), f"options.avoid is {self.avoid!r}; it must be a list of phrases")
        object.__setattr__(self, "avoid", tuple(self.avoid))  # of a stored job it is a list
        _check(
            len(self.avoid) <= MAX_PHRASES, f"options.avoid has {len(self.avoid)} phrases; at most {MAX_PHRASES} fit"
        )
        for phrase in self.avoid:
            _check_text("options.avoid", phrase, MAX_PHRASE_LENGTH)
            _check(bool(phrase.strip()), "options.avoid holds a blank phrase; take it out")
        _check(1 <= self.max_tokens <= 4096, f"options.max_tokens is {self.max_tokens}; it must be 1 to 4096")
        _check(
            0 <= self.min_tokens <= self.max_tokens,
            f"options.min_tokens is {self.min_tokens}; it must be 0 to max_tokens, {self.max_tokens}",
        )
        _check_temperature(self.temperature)
        _check_sampling(self.top_p, self.top_k, self.seed)

    @property
    def seeds_per_item(self) -> int:
        return 1


@dataclass(frozen=True)
class GenerateOptions:
    """How every item of a generation job is drawn, unless the item says otherwise."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

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


def kind_of(options: Options) -> JobKind:
    return JobKind.caption if isinstance(options, CaptionOptions) else JobKind.generate


def options_of_item(options: Options, values: dict[str, Any] | None) -> Options:
    """A job's options with an item's own in their place. Raises InvalidRequestValue."""
    if not values:
        return options
    known = _types_of(kind_of(options))
    for name in values:
        if name in ITEM_FIELDS or name not in known:
            instead = "is a field of the item itself" if name in ITEM_FIELDS else "is not known"
            names = ", ".join(sorted(set(known) - ITEM_FIELDS))
            raise InvalidRequestValue(f"options.{name[:100]} {instead}; an item's options are {names}")
    check_option_types(kind_of(options), values)
    return replace(options, **values)


def changed_options(options: Options, changes: dict[str, Any]) -> Options:
    """A job's options with others in their place. Raises InvalidRequestValue."""
    known = _types_of(kind_of(options))
    for name in changes:
        _check(name in known, f"options.{name[:100]} is not known; a job's options are {', '.join(known)}")
    check_option_types(kind_of(options), changes)
    return replace(options, **changes)


def check_option_types(kind: JobKind, values: dict[str, Any]) -> None:
    """That values read from JSON are of their options' types; those of no option are not looked at.

    Raises InvalidRequestValue.
    """
    known = _types_of(kind)
    for name, value in values.items():
        is_right = name not in known or _fits(known[name], value)
        _check(is_right, f"options.{name} is {str(value)[:100]!r}, which is not of its type")


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
    reused: int = 0  # of the results, those that were another item's before

    @property
    def finished(self) -> int:
        return self.results + self.failures

    @property
    def balanced(self) -> bool:
        """The promise: every accepted item ended exactly once."""
        return self.results + self.failures + self.cancelled == self.total


@cache
def _types_of(kind: JobKind) -> dict[str, Any]:
    options: type[Options] = CaptionOptions if kind is JobKind.caption else GenerateOptions
    hints = get_type_hints(options)
    return {field.name: hints[field.name] for field in fields(options)}


def _fits(hint: Any, value: object) -> bool:
    """Whether a value read from JSON is of an option's type; true and false are no numbers."""
    if get_origin(hint) is UnionType:
        return any(_fits(each, value) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(type(each) is get_args(hint)[0] for each in value)
    if hint is NoneType:
        return value is None
    return type(value) in (int, float) if hint is float else type(value) is hint


def end_state(counts: Counts, *, cancelled_at: datetime | None, deadline_at: datetime | None) -> JobState:
    """How a job ends whose items are counted. What stopped it does not matter where it left nothing unfinished."""
    if cancelled_at is None or (counts.total and not counts.cancelled):
        return JobState.completed
    return JobState.expired if was_late(cancelled_at, deadline_at) else JobState.cancelled


def was_late(cancelled_at: datetime, deadline_at: datetime | None) -> bool:
    """Whether it was its deadline that stopped a job, rather than somebody before it."""
    return deadline_at is not None and cancelled_at >= deadline_at


def _check_text(name: str, text: object, longest: int) -> None:
    _check(isinstance(text, str), f"{name} is or holds {text!r}, which is not text")
    text = str(text)
    _check(len(text) <= longest, f"{name} is or holds {len(text)} characters; at most {longest} are accepted")
    is_unicode = text == text.encode("utf-8", "replace").decode() and "\x00" not in text
    _check(is_unicode, f"{name} holds half a surrogate pair or a NUL; decode it properly")


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
