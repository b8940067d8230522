"""Pictures to scenes, by rules: what differs from the border is an object; its colour, shape and size are the nearest.

A picture of any size is looked at as 64 x 64 px. Specks are overlooked, blurred edges and small errors of colour borne.
Objects that touch are one. A border of no known background, an object like none of the shapes or of no known colour,
or no object at all: then the picture is no scene.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from janus_core.evaluation.components import label
from janus_core.evaluation.palette import find_fill, find_paper
from janus_core.evaluation.scene import Group, Scene
from janus_core.evaluation.shapes import DIAMETERS, FILLS, Point
from janus_core.evaluation.templates import match

SIDE = 64
LEAST_OVERLAP = 0.55
"""With the likeliest shape, shared over joint area; undisturbed objects reach 0.69 to 1."""

DOMINANCE = 1.2
"""Of two single objects one is left of the other if their centres differ so much more along than across that axis."""

_LEAST_PIXELS = 14
"""Fewer are a speck; the smallest object has about 80."""

_LEAST_CONTRAST = 38.0
_EDGE = 0.45
"""An object's edge is where the picture is this far on the way from its background to the strongest colour nearby."""

_OUTSIDE, _INSIDE = 0.35, 0.75
"""The same way, where an object covers nothing of a pixel and where all of it."""

_SHRINKAGE = 0.035
"""Pictures that were drawn much larger have thinner edges once they are 64 px: objects measure so much smaller."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """An object in a picture of side 1: its look, and its centre (x, y)."""

    size: str
    colour: str
    shape: str
    centre: Point


def detect(image: Image.Image) -> Scene | None:
    """What the picture shows, or None where it is no scene. Its groups, counts and sizes may be any."""
    pixels = _read(image)
    paper = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    background = find_paper(paper)
    shrinkage = _SHRINKAGE * max(0.0, 1 - SIDE / max(image.size))
    found = find_objects(pixels, paper, shrinkage) if background else None
    if not found or background is None:
        return None
    counts = Counter((each.size, each.colour, each.shape) for each in found)
    groups = tuple(Group(count, *look) for look, count in counts.items())
    relation = _relate(found[0].centre, found[1].centre) if len(found) == len(groups) == 2 else None
    return Scene(groups, background, relation)


def _read(image: Image.Image) -> Floats:
    picture = image.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.float32)


def find_objects(pixels_HWC: Floats, paper_C: Floats, shrinkage: float = 0.0) -> list[Found] | None:
    """Every object, from top to bottom; None where one of them is like nothing in this world.

    Args:
        shrinkage: by which share objects measure smaller than they are.
    """
    contrast = np.linalg.norm(pixels_HWC - paper_C, axis=2)
    strongest = np.maximum(_maximum(contrast, 2), 2 * _LEAST_CONTRAST)
    labels, count = label(contrast > np.maximum(_EDGE * strongest, _LEAST_CONTRAST))
    found = []
    for number in range(1, count + 1):
        part = labels == number
        if part.sum() < _LEAST_PIXELS:
            continue
        colour = find_fill(pixels_HWC[part], paper_C)
        if colour is None:
            return None
        full = np.minimum(strongest, math.dist(FILLS[colour], paper_C.tolist()))
        thing = _recognise(contrast / full, part, colour, shrinkage)
        if thing is None:
            return None
        found.append(thing)
    return found


def _recognise(share: Floats, part: NDArray[np.bool_], colour: str, shrinkage: float) -> Found | None:
    """The object of a part of the mask. `share` is how far every pixel is from the background to the object."""
    ys, xs = np.nonzero(part)
    top, left = max(0, ys.min() - 2), max(0, xs.min() - 2)
    box = slice(top, ys.max() + 3), slice(left, xs.max() + 3)
    around = _maximum(part[box].astype(np.float32), 1)
    cover = around * np.clip((share[box] - _OUTSIDE) / (_INSIDE - _OUTSIDE), 0, 1)
    shape, radius, (x, y), overlap = match(cover)
    if overlap < LEAST_OVERLAP:
        return None
    diameter = 2 * radius / SIDE / (1 - shrinkage)
    size = min(DIAMETERS, key=lambda name: abs(math.log(DIAMETERS[name] / diameter)))
    return Found(size, colour, shape, ((x + left + 0.5) / SIDE, (y + top + 0.5) / SIDE))


def _maximum(values: Floats, reach: int) -> Floats:
    """The greatest value within so many pixels of each."""
    height, width = values.shape
    padded = np.pad(values, reach, mode="edge")
    across = np.max([padded[:, shift : shift + width] for shift in range(2 * reach + 1)], axis=0)
    return np.asarray(np.max([across[shift : shift + height] for shift in range(2 * reach + 1)], axis=0))


def _relate(first: Point, second: Point) -> str | None:
    x, y = second[0] - first[0], second[1] - first[1]
    if abs(x) >= DOMINANCE * abs(y):
        return "left" if x > 0 else "right"
    if abs(y) >= DOMINANCE * abs(x):
        return "above" if y > 0 else "below"
    return None
