"""The detector: whole scenes, from clean pictures and from worse ones."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from janus_core.evaluation.detector import detect
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import COLOURS, RELATIONS, SHAPES, SIZES, Group, Scene, sample_scene
from janus_core.evaluation.shapes import FILLS, PAPERS

Degrade = Callable[[Image.Image, random.Random], Image.Image]


def _accuracy(count: int, seed: int, degrade: Degrade = lambda image, _: image, side: int = 64) -> float:
    rng = random.Random(seed)
    right = 0
    for _ in range(count):
        scene = sample_scene(rng)
        right += detect(degrade(render(scene, rng, side), rng)) == scene
    return right / count


def _blur(sigma: float) -> Degrade:
    return lambda image, _: image.filter(ImageFilter.GaussianBlur(sigma))


def _compress(quality: int) -> Degrade:
    def degrade(image: Image.Image, _: random.Random) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0)
        return Image.open(file).convert("RGB")

    return degrade


def _tint(image: Image.Image, rng: random.Random) -> Image.Image:
    pixels = np.asarray(image).astype(int) + [rng.randint(-15, 15) for _ in range(3)]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _decoded(image: Image.Image, rng: random.Random) -> Image.Image:
    """Worse in the ways of an image tokenizer's decoder: blurred, with blocky noise and colours that are off."""
    return _tint(_compress(50)(_blur(0.6)(image, rng), rng), rng)


def test_whole_scenes_are_found_in_clean_pictures() -> None:
    assert _accuracy(1000, seed=0) >= 0.99


@pytest.mark.parametrize(
    ("degrade", "least"),
    [(_blur(0.7), 0.98), (_blur(1.0), 0.97), (_compress(40), 0.97), (_tint, 0.98), (_decoded, 0.97)],
    ids=["blurred", "very blurred", "compressed", "tinted", "decoded"],
)
def test_whole_scenes_are_found_in_worse_pictures(degrade: Degrade, least: float) -> None:
    assert _accuracy(500, seed=1, degrade=degrade) >= least


@pytest.mark.parametrize("side", [48, 96, 384])
def test_whole_scenes_are_found_in_pictures_of_other_sizes(side: int) -> None:
    assert _accuracy(120, seed=2, side=side) >= 0.97


def test_every_look_is_told_from_every_other() -> None:
    rng = random.Random(3)
    scenes = [Scene((Group(1, z, c, s),), rng.choice(list(PAPERS))) for z in SIZES for c in COLOURS for s in SHAPES]
    wrong = [scene for scene in scenes if detect(render(scene, rng)) != scene]
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_are_seen_as_they_were_drawn(relation: str) -> None:
    rng = random.Random(4)
    scene = Scene((Group(1, "small", "red", "ring"), Group(1, "large", "red", "star")), "white", relation)
    for _ in range(20):
        assert detect(render(scene, rng)) == scene


def test_specks_are_overlooked() -> None:
    rng = random.Random(5)
    scene = Scene((Group(1, "large", "blue", "circle"),), "white")
    for _ in range(30):
        picture = render(scene, rng)
        free = [(x, y) for x, y in ((3, 3), (58, 3), (3, 58), (58, 58)) if _is_paper(picture, x, y)]
        for x, y in free[:2]:
            ImageDraw.Draw(picture).rectangle((x, y, x + 2, y + 2), FILLS["red"])
        assert detect(picture) == scene


def _is_paper(picture: Image.Image, x: int, y: int) -> bool:
    around = np.asarray(picture.crop((x - 3, y - 3, x + 6, y + 6))).astype(int)
    return bool((np.abs(around - PAPERS["white"]) < 40).all())


def test_more_objects_than_the_world_has_are_counted() -> None:
    picture = Image.new("RGB", (64, 64), PAPERS["black"])
    for x, y in ((12, 12), (48, 12), (12, 48), (48, 48), (30, 30), (30, 52)):
        ImageDraw.Draw(picture).ellipse((x - 6, y - 6, x + 6, y + 6), FILLS["green"])
    assert detect(picture) == Scene((Group(6, "small", "green", "circle"),), "black")


def test_a_picture_without_objects_is_no_scene() -> None:
    assert detect(Image.new("RGB", (64, 64), PAPERS["white"])) is None


def test_a_picture_of_another_world_is_no_scene() -> None:
    assert detect(Image.new("RGB", (64, 64), (0, 0, 255))) is None
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert detect(Image.fromarray(noise)) is None


def test_an_object_like_none_of_the_shapes_or_colours_is_no_scene() -> None:
    bar = Image.new("RGB", (64, 64), PAPERS["white"])
    ImageDraw.Draw(bar).rectangle((8, 30, 56, 34), FILLS["red"])
    assert detect(bar) is None
    dark = Image.new("RGB", (64, 64), PAPERS["white"])
    ImageDraw.Draw(dark).ellipse((20, 20, 40, 40), (0, 0, 0))
    assert detect(dark) is None


def test_objects_on_a_diagonal_have_no_relation() -> None:
    picture = Image.new("RGB", (64, 64), PAPERS["gray"])
    ImageDraw.Draw(picture).ellipse((6, 6, 18, 18), FILLS["green"])
    ImageDraw.Draw(picture).ellipse((42, 42, 54, 54), FILLS["red"])
    scene = detect(picture)
    assert scene is not None
    assert scene.relation is None
