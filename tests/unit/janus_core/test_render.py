"""Pictures of scenes: the same from the same seed, objects apart, and relations that can be seen."""

from __future__ import annotations

import math
import random
from itertools import combinations

import numpy as np
import pytest

from janus_core.evaluation.layout import CLEAR, DOMINANCE, GAP, MARGIN, arrange, holds
from janus_core.evaluation.render import PLAIN, VARIED, Style, compose, render
from janus_core.evaluation.scene import RELATIONS, Group, Scene, sample_scene
from janus_core.evaluation.shapes import DIAMETERS, FILLS, PAPERS

LARGEST = (1 + VARIED.size) * DIAMETERS["large"] / 2
LATTICES = (VARIED.lattice, PLAIN.lattice)


def test_the_same_seed_draws_the_same_picture_and_another_seed_another() -> None:
    scene = sample_scene(random.Random(0))
    first, again, other = (np.asarray(render(scene, random.Random(seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("side", [48, 64, 100, 384])
def test_pictures_have_the_side_that_is_asked_for(side: int) -> None:
    picture = render(sample_scene(random.Random(0)), random.Random(1), side)
    assert (picture.mode, picture.size) == ("RGB", (side, side))


def test_objects_cover_the_same_share_of_a_picture_of_any_side() -> None:
    scene = Scene((Group(1, "large", "red", "circle"),), "white")
    expected = math.pi * (DIAMETERS["large"] / 2) ** 2
    for side in (64, 256):
        pixels = np.asarray(render(scene, random.Random(3), side)).astype(int)
        covered = (np.abs(pixels - PAPERS["white"]).sum(axis=2) > 120).mean()
        assert covered == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("lattice", LATTICES)
def test_objects_stand_apart_and_inside_the_frame(lattice: float) -> None:
    rng = random.Random(4)
    for _ in range(1500):
        radii = [rng.uniform(0.1, LARGEST) for _ in range(rng.randint(1, 4))]
        centres = arrange(radii, None, rng, lattice)
        for (x, y), radius in zip(centres, radii, strict=True):
            assert min(x, y) - radius >= MARGIN - 1e-9
            assert max(x, y) + radius <= 1 - MARGIN + 1e-9
            assert (x / lattice).is_integer()
            assert (y / lattice).is_integer()
        for (a, r), (b, s) in combinations(zip(centres, radii, strict=True), 2):
            assert math.dist(a, b) >= r + s + 2 / 64
    assert GAP > 2 / 64


@pytest.mark.parametrize("lattice", LATTICES)
def test_four_of_the_largest_find_room(lattice: float) -> None:
    rng = random.Random(5)
    for _ in range(50):
        assert len(set(arrange([LARGEST] * 4, None, rng, lattice))) == 4


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("relation", RELATIONS)
def test_related_objects_differ_clearly_along_one_axis(relation: str, lattice: float) -> None:
    rng = random.Random(6)
    for _ in range(300):
        (x, y), (u, v) = arrange([rng.uniform(0.1, LARGEST), rng.uniform(0.1, LARGEST)], relation, rng, lattice)
        along, across = (u - x, v - y) if relation in ("left", "right") else (v - y, u - x)
        assert (along > 0) == (relation in ("left", "above"))
        assert abs(along) >= CLEAR
        assert abs(along) >= DOMINANCE * abs(across)


def test_when_a_relation_holds() -> None:
    assert holds("left", (0.2, 0.5), (0.8, 0.6))
    assert holds("right", (0.8, 0.5), (0.2, 0.6))
    assert holds("above", (0.5, 0.2), (0.5, 0.8))
    assert holds("below", (0.5, 0.8), (0.5, 0.2))
    assert not holds("left", (0.8, 0.5), (0.2, 0.6))
    assert not holds("left", (0.2, 0.2), (0.8, 0.8))
    assert not holds("left", (0.45, 0.5), (0.55, 0.5))


def test_the_corners_are_background_and_some_pixels_are_near_every_colour_that_is_named() -> None:
    rng = random.Random(7)
    for _ in range(200):
        scene = sample_scene(rng)
        pixels = np.asarray(render(scene, rng)).astype(int)
        assert np.abs(np.median(pixels[0], axis=0) - PAPERS[scene.background]).max() < 12
        for group in scene.groups:
            assert (np.abs(pixels - FILLS[group.colour]).max(axis=2) < 30).sum() > 5 * group.count


def test_plain_pictures_of_an_object_differ_in_its_place_alone() -> None:
    scene = Scene((Group(1, "medium", "blue", "star"),), "beige")
    plain, varied = ({cut_out(scene, random.Random(seed), style) for seed in range(12)} for style in (PLAIN, VARIED))
    assert len(plain) == 1
    assert len(varied) == 12


def cut_out(scene: Scene, rng: random.Random, style: Style) -> bytes:
    """The pixels around its one object."""
    picture, (placed,) = compose(scene, rng, 64, style)
    x, y = (round(64 * place) for place in placed.centre)
    return picture.crop((x - 12, y - 12, x + 12, y + 12)).tobytes()
