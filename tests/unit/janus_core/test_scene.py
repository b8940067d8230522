"""Scenes: what is sampled, what is held out, what is equal."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from janus_core.evaluation.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    INVERSE,
    KINDS,
    RELATIONS,
    SHAPES,
    SIZES,
    Group,
    Scene,
    is_held_out,
    sample_scene,
    vary_scene,
)

RED = Group(1, "large", "red", "circle")
BLUE = Group(1, "small", "blue", "square")


def _scenes(count: int, seed: int = 0, **options: object) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, **options) for _ in range(count)]  # type: ignore[arg-type]


def test_left_of_is_right_of_seen_from_the_other_side() -> None:
    left = Scene((RED, BLUE), "white", "left")
    assert left == Scene((BLUE, RED), "white", "right")
    assert hash(left) == hash(Scene((BLUE, RED), "white", "right"))
    assert left != Scene((RED, BLUE), "white", "right")
    assert left != Scene((RED, BLUE), "white", "above")
    assert left != Scene((RED, BLUE), "black", "left")
    assert Scene((BLUE, RED), "white", "below").canonical().groups == (RED, BLUE)


def test_the_order_of_groups_says_nothing_where_no_relation_is_claimed() -> None:
    two = Group(2, "large", "red", "circle")
    assert Scene((two, BLUE), "gray") == Scene((BLUE, two), "gray")
    assert Scene((two, BLUE), "gray") != Scene((RED, BLUE), "gray")


def test_sampled_scenes_keep_the_rules_of_the_world() -> None:
    for scene in _scenes(4000):
        counts = [group.count for group in scene.groups]
        assert 1 <= len(counts) <= 3
        assert min(counts) >= 1
        assert sum(counts) <= 4
        assert len({(group.shape, group.colour) for group in scene.groups}) == len(counts)
        assert (scene.relation is not None) == (counts == [1, 1])


def test_every_kind_comes_in_its_share() -> None:
    kinds = Counter(scene.kind for scene in _scenes(4000))
    for kind, share in KINDS.items():
        assert abs(kinds[kind] / 4000 - share) < 0.03
        assert {scene.kind for scene in _scenes(50, kind=kind)} == {kind}


def test_the_same_seed_samples_the_same_scenes() -> None:
    assert _scenes(50, seed=3) == _scenes(50, seed=3)
    assert _scenes(50, seed=3) != _scenes(50, seed=4)


def test_training_never_shows_a_held_out_combination_and_held_out_scenes_always_do() -> None:
    trained, held_out = _scenes(6000), _scenes(1000, held_out=True)
    assert not any(is_held_out(scene) for scene in trained)
    assert all(is_held_out(scene) and scene.relation is not None for scene in held_out)
    assert not set(trained) & set(held_out)


def test_whether_a_scene_is_held_out_does_not_depend_on_how_it_is_told() -> None:
    for scene in [*_scenes(300, kind="relation"), *_scenes(300, held_out=True)]:
        assert is_held_out(scene) == is_held_out(scene.flipped()) == is_held_out(scene.canonical())


def test_a_tenth_of_all_triples_is_held_out_and_every_part_of_them_is_trained_plentifully() -> None:
    assert len(HELD_OUT) == pytest.approx(0.1 * len(SHAPES) * len(COLOURS) * len(RELATIONS), abs=2)
    sides = Counter(
        word
        for scene in _scenes(8000, kind="relation")
        for group, relation in zip(scene.groups, (str(scene.relation), INVERSE[str(scene.relation)]), strict=True)
        for word in (group.shape, group.colour, relation)
    )
    assert min(sides[shape] for shape in SHAPES) > 16000 / len(SHAPES) * 0.8
    assert min(sides[colour] for colour in COLOURS) > 16000 / len(COLOURS) * 0.8
    assert min(sides[relation] for relation in RELATIONS) > 16000 / len(RELATIONS) * 0.8


def test_every_word_of_the_world_is_sampled() -> None:
    scenes = _scenes(2000)
    groups = [group for scene in scenes for group in scene.groups]
    assert {group.shape for group in groups} == set(SHAPES)
    assert {group.colour for group in groups} == set(COLOURS)
    assert {group.size for group in groups} == set(SIZES)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.relation for scene in scenes} == {*RELATIONS, None}


def test_only_relations_are_held_out() -> None:
    with pytest.raises(ValueError, match="never held out"):
        sample_scene(random.Random(0), kind="mixed", held_out=True)


def test_a_varied_scene_says_one_thing_otherwise_and_training_may_show_it() -> None:
    rng = random.Random(7)
    changed: Counter[str] = Counter()
    for scene in _scenes(600, seed=8):
        varied = vary_scene(scene, rng)
        assert varied != scene
        assert not is_held_out(varied)
        assert sum(group.count for group in varied.groups) <= 4
        assert (varied.relation is not None) == (varied.kind == "relation")
        before, after = ([*each.groups, each.background] for each in (scene, varied))
        differing = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
        assert len(differing) <= 1
        for one, other in differing:
            if isinstance(one, Group) and isinstance(other, Group):
                names = [name for name in vars(one) if getattr(one, name) != getattr(other, name)]
                assert len(names) == 1
                changed[names[0]] += 1
            else:
                changed["background"] += 1
        changed["relation"] += not differing
    assert min(changed[name] for name in ("count", "size", "colour", "shape", "background", "relation")) >= 20
