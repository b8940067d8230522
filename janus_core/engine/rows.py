"""Requests on their way through the engine: checked, tokenised, and with what was answered so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor

from janus_core.engine.filters import Filter
from janus_core.engine.requests import Caption, GeneratedImage, Rejected
from janus_core.engine.sampling import Sampling
from janus_core.engine.solvers import Move

Answer: TypeAlias = Caption | GeneratedImage | Rejected


@dataclass(eq=False)
class Row(ABC):
    """ids: the prompt, image placeholders expanded.

    job: whose share of the engine it counts against. order: of the job's requests the lowest goes first.
    is_cancelled: may be set by any thread; the row leaves before the next turn.
    begun_at: seconds of `time.monotonic()` when it began to run; later, where it had to begin again.
    answer: once it left. error: what the engine raised over this row alone, in place of an answer.
    """

    ids: list[int]
    job: str = field(default="", kw_only=True)
    order: int = field(default=0, kw_only=True)
    is_cancelled: bool = field(default=False, kw_only=True)
    begun_at: float | None = field(default=None, kw_only=True)
    answer: Answer | None = field(default=None, kw_only=True)
    error: Exception | None = field(default=None, kw_only=True)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.ids)

    @property
    @abstractmethod
    def num_slots(self) -> int: ...

    @property
    @abstractmethod
    def num_positions(self) -> int:
        """Of each of its slots, at most."""

    @property
    @abstractmethod
    def is_done(self) -> bool:
        """Whether it is answered in full."""

    @abstractmethod
    def restart(self) -> None:
        """Forget what was answered so far."""


@dataclass(eq=False)
class CaptionRow(Row):
    """pixels: float32 [images, 3, S, S]. begun: the answer's forced beginning, the last of `ids`.

    max_new_tokens: behind that. tokens: the answer so far, without what was forced and without end-of-sentence.
    """

    pixels: Tensor
    max_new_tokens: int
    sampling: Sampling
    begun: tuple[int, ...] = ()
    filter: Filter | None = None
    tokens: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] | None = None

    @property
    def num_slots(self) -> int:
        return 1

    @property
    def num_positions(self) -> int:
        """The last token is never fed back."""
        return len(self.ids) + self.max_new_tokens - 1

    @property
    def is_done(self) -> bool:
        return self.finish_reason is not None

    def restart(self) -> None:
        self.tokens.clear()
        self.finish_reason = None

    def accept(self, token: int, eos_id: int) -> None:
        """One more token; whatever comes after the end is left out."""
        if self.finish_reason is not None:
            return
        if token == eos_id:
            self.finish_reason = "stop"
            return
        self.tokens.append(token)
        if len(self.tokens) == self.max_new_tokens:
            self.finish_reason = "length"


@dataclass(eq=False)
class ImageRow(Row):
    """An image of Janus or Janus-Pro: a prompt from begin-of-sentence to begin-of-image, and N = num_codes codes.

    num_drawn: codes that are chosen. codes: int64 [N], once all are.
    """

    guidance: float
    sampling: Sampling
    num_codes: int
    num_drawn: int = 0
    codes: Tensor | None = None

    @property
    def num_slots(self) -> int:
        return 1 if self.guidance == 1 else 2

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.ids) * self.num_slots

    @property
    def num_positions(self) -> int:
        return len(self.ids) + self.num_codes - 1

    @property
    def is_done(self) -> bool:
        return self.codes is not None

    def restart(self) -> None:
        self.num_drawn, self.codes = 0, None


@dataclass(eq=False)
class FlowRow(Row):
    """An image of JanusFlow: a prompt without its last token, in whose place the time stands; `latents` at the end.

    noise: float32 [C, H, Y], where the latents begin. num_moved: moves that are made.
    """

    guidance: float
    moves: list[Move]
    noise: Tensor
    num_moved: int = 0
    latents: Tensor | None = None

    @property
    def num_slots(self) -> int:
        return 1 if self.guidance == 1 else 2

    @property
    def num_positions(self) -> int:
        return len(self.ids)

    @property
    def is_done(self) -> bool:
        return self.latents is not None

    def restart(self) -> None:
        self.num_moved, self.latents = 0, None
