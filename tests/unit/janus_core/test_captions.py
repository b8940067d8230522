"""Captions: written and read back, whole and in part, and compared with scenes."""

from __future__ import annotations

import random
from itertools import permutations, product

import pytest

from janus_core.evaluation.captions import describe, parse, phrase, prompt_for
from janus_core.evaluation.partial import PartialGroup, PartialScene, matches
from janus_core.evaluation.scene import COLOURS, SHAPES, Group, Scene, is_held_out, sample_scene

RED = Group(1, "large", "red", "circle")
BLUE = Group(1, "small", "blue", "square")


def _said(text: str) -> PartialScene:
    said = parse(text)
    assert said is not None, text
    return said


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene((RED,), "white"), "a large red circle on a white background"),
        (Scene((Group(3, "small", "blue", "star"),), "gray"), "three small blue stars on a gray background"),
        (Scene((Group(2, "medium", "green", "cross"),), "gray"), "two medium green crosses on a gray background"),
        (
            Scene((BLUE, RED), "black", "right"),
            "a large red circle to the left of a small blue square on a black background",
        ),
        (Scene((BLUE, RED), "beige", "above"), "a small blue square above a large red circle on a beige background"),
        (
            Scene((Group(2, "small", "orange", "ring"), BLUE, RED), "white"),
            "a large red circle, a small blue square and two small orange rings on a white background",
        ),
    ],
)
def test_the_canonical_caption(scene: Scene, caption: str) -> None:
    assert describe(scene) == caption


def test_every_full_caption_is_read_back_as_its_scene() -> None:
    rng = random.Random(0)
    for _ in range(4000):
        scene = sample_scene(rng)
        assert _said(describe(scene)).to_scene() == scene
        assert _said(phrase(scene, rng)).to_scene() == scene


def test_equal_scenes_have_one_canonical_caption_and_others_another() -> None:
    rng = random.Random(1)
    scenes = [sample_scene(rng) for _ in range(2000)]
    assert all(describe(scene) == describe(scene.flipped()) for scene in scenes)
    assert len({describe(scene) for scene in scenes}) == len(set(scenes))


def test_phrases_use_every_order_and_both_sides() -> None:
    rng = random.Random(2)
    above = Scene((RED, BLUE), "white", "above")
    assert len({phrase(above, rng) for _ in range(50)}) == 2
    assert any(" below " in phrase(above, rng) for _ in range(50))
    three = Scene((RED, BLUE, Group(1, "small", "pink", "star")), "white")
    assert len({phrase(three, rng) for _ in range(200)}) == 6


def test_every_prompt_is_true_of_its_scene() -> None:
    rng = random.Random(3)
    for _ in range(4000):
        scene = sample_scene(rng)
        assert matches(_said(prompt_for(scene, rng)), scene)


def test_half_of_the_prompts_say_all_and_every_attribute_is_left_out_at_times() -> None:
    rng = random.Random(4)
    said = [_said(prompt_for(sample_scene(rng), rng)) for _ in range(3000)]
    assert 0.45 < sum(each.to_scene() is not None for each in said) / len(said) < 0.6
    assert any(each.groups[0].colour is None for each in said)
    assert any(each.groups[0].size is None and each.groups[0].colour for each in said)
    assert any(each.background is None for each in said)
    assert any([group.count for group in each.groups] == [1, 1] and each.relation is None for each in said)


def test_prompts_of_the_six_categories_are_among_them() -> None:
    rng = random.Random(5)
    prompts = {prompt_for(sample_scene(rng), rng) for _ in range(60000)}
    wanted = ("a star", "a circle and a star", "two stars", "a red circle", "a circle to the left of a star")
    assert prompts.issuperset(wanted)


def test_colours_stay_where_shapes_do_not_tell_groups_apart() -> None:
    rng = random.Random(6)
    scene = Scene((RED, Group(1, "small", "blue", "circle")), "white", "left")
    assert all(group.colour for _ in range(200) for group in _said(prompt_for(scene, rng)).groups)


@pytest.mark.parametrize(
    "text",
    [
        "A large red circle on a white background.",
        "a photo of a large red circle on a white background",
        "  an large red  circle on a white background \n",
        "1 large red circle on a white background",
        "one large red circle on a white background .",
    ],
)
def test_reading_bears_with_small_differences(text: str) -> None:
    assert _said(text).to_scene() == Scene((RED,), "white")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a dog",
        "a red large circle",
        "two red circle",
        "a red circles",
        "five red circles",
        "a red circle on a blue background",
        "a red circle to the left of two blue squares",
        "a red circle to the left of",
        "a red circle above a star below a ring",
        "a red circle and",
        "a red circle on a white background on a white background",
        "a red circle a red circle",
        "a " * 5000,
    ],
)
def test_other_words_are_not_read(text: str) -> None:
    assert parse(text) is None


def test_an_incomplete_caption_is_no_scene() -> None:
    for text in (
        "a red circle on a white background",
        "a large circle on a white background",
        "a large red circle",
        "a large red circle and a small blue square on a white background",  # where?
        "a large red circle and a large red circle on a white background",
    ):
        assert _said(text).to_scene() is None
    assert _said("two stars") == PartialScene((PartialGroup(2, "star"),))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("a circle and a square", True),
        ("a square and a circle", True),
        ("a red circle and a blue square", True),
        ("a blue circle and a red square", False),
        ("a circle", False),
        ("two circles", False),
        ("a circle to the left of a square", True),
        ("a square to the right of a circle", True),
        ("a square to the left of a circle", False),
        ("a circle above a square", False),
        ("a large circle to the left of a square", True),
        ("a small circle to the left of a square", False),
        ("a circle and a square on a black background", True),
        ("a circle and a square on a white background", False),
        ("a circle and a square and a star", False),
    ],
)
def test_whether_a_text_is_true_of_a_scene(text: str, fits: bool) -> None:
    assert matches(_said(text), Scene((RED, BLUE), "black", "left")) is fits


def test_counts_are_of_objects_however_the_scene_groups_them() -> None:
    stars = Scene((Group(2, "small", "red", "star"), Group(1, "large", "blue", "star")), "gray")
    assert matches(_said("three stars"), stars)
    assert matches(_said("a blue star and two stars"), stars)
    assert matches(_said("two stars and a blue star"), stars)
    assert not matches(_said("two stars"), stars)
    assert not matches(_said("three red stars"), stars)
    assert not matches(_said("four stars"), stars)


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("a star", "a medium yellow star on a white background"),
        ("four pink rings", "four medium pink rings on a white background"),
        ("a circle and a star", "a medium red circle to the left of a medium yellow star on a white background"),
        ("a small star below a ring", "a small yellow star below a medium purple ring on a white background"),
        (
            "a circle, a star and two crosses on a gray background",
            "a medium red circle, a medium yellow star and two medium orange crosses on a gray background",
        ),
        (
            "a green square and a red circle",
            "a medium green square to the right of a medium red circle on a white background",
        ),
    ],
)
def test_what_is_unsaid_is_as_usual(text: str, usual: str) -> None:
    scene = _said(text).to_usual_scene()
    assert matches(_said(text), scene)
    assert not is_held_out(scene)
    assert scene == _said(usual).to_scene()


def test_any_two_objects_have_a_usual_scene() -> None:
    looks = [PartialGroup(1, shape, colour=colour) for shape, colour in product(SHAPES, COLOURS)]
    assert not any(is_held_out(PartialScene(pair).to_usual_scene()) for pair in permutations(looks, 2))
