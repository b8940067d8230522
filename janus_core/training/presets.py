"""Hyper-parameters: what the papers publish for each model, and what the two small models here are trained with.

Source: the papers of Janus, Janus-Pro and JanusFlow, their tables of hyper-parameters; no training code was released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Ratio:
    """Parts of each kind of data inside every batch."""

    understanding: int
    text: int
    generation: int

    def split(self, batch_size: int) -> tuple[int, int, int]:
        """Rows of each kind; they add up to `batch_size`, and a kind with a part has at least one row."""
        parts = (self.understanding, self.text, self.generation)
        whole = sum(parts)
        kinds = [n for n in range(3) if parts[n]]
        if batch_size < len(kinds):
            raise ValueError(f"a batch of {batch_size} is too small for {parts}: every kind needs a row")
        counts = [max(batch_size * part // whole, 1 if part else 0) for part in parts]
        while (lacking := batch_size - sum(counts)) != 0:
            change = 1 if lacking > 0 else -1
            able = [n for n in kinds if counts[n] + change > 0]
            counts[max(able, key=lambda n: change * (batch_size * parts[n] / whole - counts[n]))] += change
        return counts[0], counts[1], counts[2]


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one optimizer.

    stage: 1, 2 or 3 of the papers, which says what trains; None for a part that the papers take ready-made.
    ratio: of the data of a stage. first_ratio: another one for the first so many steps.
    muon_rate: the learning rate of matrices inside blocks, which Muon trains then; None leaves them to AdamW.
    ema_decay: keep the running mean of the weights, with this decay a step.
    """

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    schedule: Schedule = "constant"
    weight_decay: float = 0.0
    stage: Literal[1, 2, 3] | None = None
    ratio: Ratio | None = None
    first_ratio: tuple[int, Ratio] | None = None
    muon_rate: float | None = None
    ema_decay: float | None = None

    def ratio_at(self, step: int) -> Ratio:
        if self.first_ratio is not None and step < self.first_ratio[0]:
            return self.first_ratio[1]
        if self.ratio is None:
            raise ValueError(f"the phase {self.name} has no mixture of data")
        return self.ratio


BETAS = (0.9, 0.95)
EPSILON = 1e-8  # not published
CLIP_NORM = 1.0
DROP_PROMPT = 0.1
EMA_DECAY = 0.99  # JanusFlow's released weights are the running mean

_JANUS = (
    Phase("stage1", 10_000, 256, 1e-3, 300, "cosine", 0.0, 1, Ratio(1, 0, 1)),
    Phase("stage2", 180_000, 512, 1e-4, 5_000, "constant", 0.0, 2, Ratio(2, 3, 5)),
    Phase("stage3", 24_000, 256, 2e-5, 0, "constant", 0.1, 3, Ratio(7, 3, 10)),
)
_JANUS_PRO_1B = (
    Phase("stage1", 20_000, 256, 1e-3, 600, "constant", 0.0, 1, Ratio(1, 0, 3)),
    Phase("stage2", 270_000, 512, 1e-4, 5_000, "constant", 0.0, 2, Ratio(2, 3, 5)),  # of 360,000 planned
    Phase("stage3", 80_000, 128, 4e-5, 0, "constant", 0.0, 3, Ratio(5, 1, 4)),
)
_JANUS_PRO_7B = (
    *_JANUS_PRO_1B[:2],
    Phase("stage3", 40_000, 128, 4e-5, 0, "constant", 0.0, 3, Ratio(5, 1, 4)),
)
_JANUSFLOW = (
    Phase("stage1", 10_000, 512, 1e-4, 2_000, "constant", 0.0, 1, Ratio(50, 0, 50), ema_decay=EMA_DECAY),
    Phase(
        "stage2",
        390_000,
        512,
        1e-4,
        2_000,
        "constant",
        0.0,
        2,
        Ratio(14, 6, 80),
        first_ratio=(10_000, Ratio(30, 20, 50)),
        ema_decay=EMA_DECAY,
    ),
    Phase("stage3", 26_000, 256, 2e-5, 1_000, "constant", 0.0, 3, Ratio(21, 9, 70), ema_decay=EMA_DECAY),
)
PUBLISHED: Mapping[str, tuple[Phase, ...]] = {
    "janus-1.3b": _JANUS,
    "janus-pro-1b": _JANUS_PRO_1B,
    "janus-pro-7b": _JANUS_PRO_7B,
    "janusflow-1.3b": _JANUSFLOW,
}
"""By registry name; the phases in order."""
