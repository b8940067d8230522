"""What is measured: so many captions or images at a time, and how long each part of them took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from janus_core.errors import JanusCoreError

Task = Literal["caption", "generate", "mixed", "encode", "decode"]


class CaseInvalid(JanusCoreError):
    """What cannot be measured as it was asked for."""


@dataclass(frozen=True)
class Case:
    """batch: requests at a time, all alike but for their image or seed.

    prompt_tokens: of a drawing's prompt, so long that the context is that of an average step. num_tokens: of an answer
    as it is run; answer_tokens: of one as it is counted, as every image has as many steps as codes.
    """

    task: Task
    batch: int
    prompt_tokens: int
    num_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Timing:
    """first_seconds: until every request has its first token; of ours some have more by then. step_seconds: of each
    token after it.

    tokens: [batch, num_tokens], greedy.
    """

    first_seconds: float
    step_seconds: Sequence[float]
    tokens: Sequence[Sequence[int]]

    @property
    def step(self) -> float:
        """The median of the steps, in seconds."""
        return statistics.median(self.step_seconds)

    def whole(self, case: Case) -> float:
        """Seconds of whole answers, as many steps as are counted."""
        return self.first_seconds + (case.answer_tokens - 1) * self.step


class Contender(Protocol):
    """Who answers a case: we, or a peer."""

    name: str

    def run(self, case: Case) -> Timing: ...
