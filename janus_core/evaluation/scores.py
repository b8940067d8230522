"""From single answers to figures: shares with intervals, and F1 of what captions say of each attribute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from janus_core.evaluation.captions import parse
from janus_core.evaluation.partial import PartialScene
from janus_core.evaluation.scene import Scene

ATTRIBUTES = ("count", "size", "colour", "shape", "relation", "background")
_Z = 1.96


@dataclass(frozen=True)
class Share:
    """How many of `count` were right."""

    right: int
    count: int

    @classmethod
    def of(cls, judged: Iterable[bool]) -> Share:
        judgements = list(judged)
        return cls(sum(judgements), len(judgements))

    @property
    def value(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.right / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, by Wilson's formula."""
        if not self.count:
            return None
        n, share = self.count, self.right / self.count
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        reach = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_of(shares: Sequence[Share]) -> float | None:
    """Each share counts the same, however many it is of; None where one is of nothing."""
    values = [share.value for share in shares if share.value is not None]
    return sum(values) / len(values) if values and len(values) == len(shares) else None


def interval_of_mean(shares: Sequence[Share]) -> tuple[float, float] | None:
    """95 %, normal, with two answers of each sort added to every share (Agresti and Coull)."""
    mean = mean_of(shares)
    if mean is None:
        return None
    drawn_in = [Share(share.right + 2, share.count + 4) for share in shares]
    variance = sum((share.value or 0) * (1 - (share.value or 0)) / share.count for share in drawn_in)
    middle = mean_of(drawn_in) or 0.0
    reach = _Z * math.sqrt(variance) / len(shares)
    return max(0.0, min(mean, middle - reach)), min(1.0, max(mean, middle + reach))


def read_answer(text: str | None) -> Scene | None:
    """The scene that an answer fully describes."""
    said = parse(text) if text is not None else None
    return said.to_scene() if said else None


def f1_of(pairs: Sequence[tuple[Scene, str | None]]) -> dict[str, float | None]:
    """F1 of each attribute over pairs of a scene and what was said of it; None where there was nothing to say.

    Statements are counted: of each group its shape, and its shape with its count, with its size, with its colour; of
    two objects which stands where; the background. What is not of the grammar states nothing.
    """
    stated, true, shared = Counter[str](), Counter[str](), Counter[str]()
    for scene, text in pairs:
        said = parse(text) if text is not None else None
        for attribute in ATTRIBUTES:
            truth = _statements(PartialScene.of(scene), attribute)
            claim = _statements(said, attribute) if said else Counter[object]()
            true[attribute] += truth.total()
            stated[attribute] += claim.total()
            shared[attribute] += (truth & claim).total()
    return {
        name: 2 * shared[name] / (stated[name] + true[name]) if stated[name] + true[name] else None
        for name in ATTRIBUTES
    }


def _statements(said: PartialScene, attribute: str) -> Counter[object]:
    if attribute == "background":
        return Counter([said.background] if said.background else [])
    if attribute == "relation":
        view = said.flipped() if said.relation in ("right", "below") else said
        looks = tuple((group.colour, group.shape) for group in view.groups)
        return Counter([(looks, view.relation)] if view.relation else [])
    if attribute == "shape":
        return Counter(group.shape for group in said.groups)
    values = [(group.shape, getattr(group, attribute)) for group in said.groups]
    return Counter(pair for pair in values if pair[1] is not None)
