"""A picture of a scene: every object turned, shaded and placed anew each time, then noise over all."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from janus_core.evaluation.layout import arrange
from janus_core.evaluation.scene import RELATIONS, Group, Scene
from janus_core.evaluation.shapes import DIAMETERS, FILLS, HOLE, OUTLINE_SHADE, PAPERS, POLYGONS, Colour, Point


@dataclass(frozen=True)
class Style:
    """How much pictures of one scene may differ.

    lattice: centres stand on multiples of this share of the side: fewer places to be told apart and foretold.
    turn: degrees that an object is turned by at most, either way. outlined: share of objects with a darker outline.
    size: share by which diameters vary; the next size is a fourth away. fill, paper: levels of 255 by which colours
    vary. noise: the strongest, as the standard deviation of a channel in levels of 255.
    """

    lattice: float
    turn: float
    outlined: float
    size: float
    fill: int
    paper: int
    noise: float


VARIED = Style(lattice=1 / 16, turn=15.0, outlined=0.5, size=0.03, fill=8, paper=4, noise=6.0)
PLAIN = Style(lattice=1 / 8, turn=0.0, outlined=0.0, size=0.0, fill=0, paper=0, noise=0.0)
"""What drawing is taught by: no prompt asks for a stain, a tilt or an outline."""

_FINE = 4
"""Pixels are drawn this many times finer along each side."""


@dataclass(frozen=True)
class Placed:
    """Where an object stands: centre (x, y) and radius of its circumscribed circle, in sides of the picture."""

    group: Group
    centre: Point
    radius: float


def render(scene: Scene, rng: random.Random, side: int = 64, style: Style = VARIED) -> Image.Image:
    """An RGB picture of `side` x `side` px; the same from an `rng` in the same state.

    Two single objects whose relation is not said get one that is clear.
    """
    return compose(scene, rng, side, style)[0]


def compose(
    scene: Scene, rng: random.Random, side: int = 64, style: Style = VARIED
) -> tuple[Image.Image, list[Placed]]:
    """What `render` gives, and what stands where in it."""
    picture = Image.new("RGB", (side, side), _near(PAPERS[scene.background], style.paper, rng))
    placed = place(scene, rng, style)
    for each in placed:
        fill = _near(FILLS[each.group.colour], style.fill, rng)
        x, y = each.centre
        _draw(picture, each.group.shape, fill, (x * side, y * side), each.radius * side, style, rng)
    return _with_noise(picture, rng.uniform(0, style.noise), rng) if style.noise else picture, placed


def place(scene: Scene, rng: random.Random, style: Style = VARIED) -> list[Placed]:
    """Its objects, each with a size and a place."""
    groups = [group for group in scene.groups for _ in range(group.count)]
    radii = [DIAMETERS[group.size] / 2 * rng.uniform(1 - style.size, 1 + style.size) for group in groups]
    relation = scene.relation or (rng.choice(RELATIONS) if scene.kind == "relation" else None)
    return [Placed(*each) for each in zip(groups, arrange(radii, relation, rng, style.lattice), radii, strict=True)]


def _near(colour: Colour, jitter: int, rng: random.Random) -> Colour:
    red, green, blue = (min(255, max(0, level + rng.randint(-jitter, jitter))) for level in colour)
    return red, green, blue


def _draw(
    picture: Image.Image, shape: str, fill: Colour, centre: Point, radius: float, style: Style, rng: random.Random
) -> None:
    """Paste an object."""
    turn, outlined = math.radians(rng.uniform(-style.turn, style.turn)), rng.random() < style.outlined
    left, top = (math.floor(place - radius) - 1 for place in centre)
    edge = math.ceil(2 * radius) + 3
    middle = (centre[0] - left) * _FINE, (centre[1] - top) * _FINE
    width = max(1, round(0.14 * radius * _FINE)) if outlined else 0
    body, line = _masks(shape, edge * _FINE, middle, radius * _FINE, turn, width)
    box = (left, top, left + edge, top + edge)
    picture.paste(fill, box, body.reduce(_FINE))
    if line is not None:
        red, green, blue = (round(level * OUTLINE_SHADE) for level in fill)
        picture.paste((red, green, blue), box, line.reduce(_FINE))


def _masks(
    shape: str, edge: int, middle: Point, radius: float, turn: float, width: int
) -> tuple[Image.Image, Image.Image | None]:
    """What the object covers, and what its outline does; a ring's outline is the outer one alone."""
    body = Image.new("L", (edge, edge))
    line = Image.new("L", (edge, edge)) if width else None
    x, y = middle
    if shape in POLYGONS:
        c, s = radius * math.cos(turn), radius * math.sin(turn)
        corners = [(x + c * px - s * py, y + s * px + c * py) for px, py in POLYGONS[shape]]
        ImageDraw.Draw(body).polygon(corners, fill=255)
        if line:
            ImageDraw.Draw(line).polygon(corners, outline=255, width=width)
        return body, line
    disc = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(body).ellipse(disc, fill=255)
    if line:
        ImageDraw.Draw(line).ellipse(disc, outline=255, width=width)
    if shape == "ring":
        hole = HOLE * radius
        ImageDraw.Draw(body).ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    return body, line


def _with_noise(picture: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    dice = np.random.Generator(np.random.SFC64(rng.getrandbits(64)))
    pixels = np.asarray(picture, dtype=np.float32)
    noisy = pixels + np.float32(strength) * dice.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
