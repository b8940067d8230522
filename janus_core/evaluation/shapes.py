"""The outlines of shapes and the colours of things, which the renderer draws and the detector looks for.

Points are (x, y) on and inside the unit circle, y down, unturned.
"""

from __future__ import annotations

import math

Point = tuple[float, float]
Colour = tuple[int, int, int]

DIAMETERS = {"small": 17 / 64, "medium": 21.5 / 64, "large": 27 / 64}
"""Of the circumscribed circle, as a share of the picture's side."""

FILLS: dict[str, Colour] = {
    "red": (222, 38, 38),
    "orange": (255, 140, 0),
    "yellow": (250, 226, 40),
    "green": (35, 160, 60),
    "cyan": (40, 212, 222),
    "blue": (45, 80, 222),
    "purple": (140, 55, 190),
    "pink": (250, 120, 190),
}
PAPERS: dict[str, Colour] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 150),
    "black": (12, 12, 12),
    "beige": (225, 210, 180),
}
OUTLINE_SHADE = 0.6
"""An outline is the fill at this brightness."""

HOLE = 0.55
"""A ring's inner radius."""

_STAR_WAIST = 0.4
_ARM = 0.27


def _regular(corners: int, *radii: float, first: float = 0.0) -> tuple[Point, ...]:
    """A polygon whose corners lie on circles of these radii in turn, the first so many degrees right of the top."""
    angles = [2 * math.pi * corner / corners + math.radians(first - 90) for corner in range(corners)]
    each = [radii[corner % len(radii)] for corner in range(corners)]
    return tuple((r * math.cos(a), r * math.sin(a)) for r, a in zip(each, angles, strict=True))


def _cross() -> tuple[Point, ...]:
    w, tip = _ARM, math.sqrt(1 - _ARM**2)
    quarter: list[Point] = [(w, -tip), (w, -w), (tip, -w)]
    points: list[Point] = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return tuple(points)


POLYGONS: dict[str, tuple[Point, ...]] = {
    "square": _regular(4, 1.0, first=45),
    "triangle": _regular(3, 1.0),
    "star": _regular(10, 1.0, _STAR_WAIST),
    "cross": _cross(),
}
"""The shapes that are not round."""
