"""Where the objects of a picture stand: inside the frame, apart from each other, and as their relation says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations

from janus_core.evaluation.scene import INVERSE
from janus_core.evaluation.shapes import Point

GAP = 3 / 64
"""Least distance between the circumscribed circles of two objects, as a share of the side."""

MARGIN = 2 / 64
"""Least distance from an object to the frame."""

DOMINANCE = 1.5
"""The centres of related objects differ so much more along the relation's axis than across it."""

CLEAR = 16 / 64
"""And at least by so much of the side."""

_TRIES = 120


def arrange(radii: Sequence[float], relation: str | None, rng: random.Random, lattice: float) -> list[Point]:
    """Centres in a picture of side 1, on multiples of `lattice`, which a quarter is one of.

    `relation` is that of the first of two to the second.
    """
    for _ in range(_TRIES):
        centres = [(_within(radius, rng, lattice), _within(radius, rng, lattice)) for radius in radii]
        if _stand_apart(centres, radii) and (relation is None or holds(relation, *centres)):
            return centres
    return _face(relation) if relation else _quarters(len(radii), rng)


def holds(relation: str, first: Point, second: Point) -> bool:
    """Whether the first is clearly where the relation says, seen from the second."""
    if relation in ("right", "below"):
        return holds(INVERSE[relation], second, first)
    x, y = second[0] - first[0], second[1] - first[1]
    along, across = (x, y) if relation == "left" else (y, x)
    return along >= CLEAR and along >= DOMINANCE * abs(across)


def _within(radius: float, rng: random.Random, lattice: float) -> float:
    nearest, last = math.ceil((MARGIN + radius) / lattice), math.floor((1 - MARGIN - radius) / lattice)
    return rng.randint(nearest, last) * lattice


def _stand_apart(centres: Sequence[Point], radii: Sequence[float]) -> bool:
    pairs = combinations(zip(centres, radii, strict=True), 2)
    return all(math.dist(a, b) >= r + s + GAP for (a, r), (b, s) in pairs)


def _face(relation: str) -> list[Point]:
    """The middles of two opposite halves."""
    near, far = (0.25, 0.5), (0.75, 0.5)
    if relation in ("above", "below"):
        near, far = near[::-1], far[::-1]
    return [near, far] if relation in ("left", "above") else [far, near]


def _quarters(count: int, rng: random.Random) -> list[Point]:
    """The middles of quarters of the picture."""
    return rng.sample([(x, y) for x in (0.25, 0.75) for y in (0.25, 0.75)], count)
