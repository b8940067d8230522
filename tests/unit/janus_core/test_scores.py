"""Figures: shares, their intervals, and F1 of attributes."""

from __future__ import annotations

import pytest

from janus_core.evaluation.captions import describe
from janus_core.evaluation.scene import Group, Scene
from janus_core.evaluation.scores import Share, f1_of, interval_of_mean, mean_of, read_answer

LEFT = Scene((Group(1, "large", "red", "circle"), Group(1, "small", "blue", "square")), "white", "left")
STARS = Scene((Group(3, "small", "pink", "star"),), "gray")


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = Share(45, 50).interval or (0, 0)
    assert (low, high) == pytest.approx((0.786, 0.957), abs=0.001)
    assert (Share(0, 10).interval or ())[0] == 0
    assert (Share(10, 10).interval or ())[1] == 1
    assert Share(0, 0).value is None
    assert Share(0, 0).interval is None


def test_the_mean_of_shares_weighs_each_the_same() -> None:
    assert mean_of([Share(1, 2), Share(100, 100)]) == 0.75
    assert mean_of([Share(1, 2), Share(0, 0)]) is None
    assert mean_of([]) is None
    low, high = interval_of_mean([Share(50, 100)] * 4) or (0, 0)
    assert (low, high) == pytest.approx((0.45, 0.55), abs=0.005)
    assert interval_of_mean([Share(0, 0)]) is None
    low, high = interval_of_mean([Share(40, 40)] * 6) or (0, 0)
    assert low < 1 == high


def test_right_captions_have_an_f1_of_one() -> None:
    assert set(f1_of([(scene, describe(scene)) for scene in (LEFT, STARS)]).values()) == {1.0}


def test_nothing_to_say_has_no_f1() -> None:
    assert f1_of([(STARS, describe(STARS))])["relation"] is None
    assert set(f1_of([]).values()) == {None}


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("two small pink stars on a gray background", "count"),
        ("three large pink stars on a gray background", "size"),
        ("three small red stars on a gray background", "colour"),
        ("three small pink stars on a black background", "background"),
    ],
)
def test_one_wrong_word_costs_one_attribute(said: str, wrong: str) -> None:
    figures = f1_of([(STARS, said)])
    assert figures.pop(wrong) == 0
    assert set(figures.values()) == {1.0, None}


def test_a_relation_is_the_same_told_from_either_side_and_wrong_the_other_way() -> None:
    flipped = "a small blue square to the right of a large red circle on a white background"
    assert f1_of([(LEFT, flipped)])["relation"] == 1
    figures = f1_of([(LEFT, flipped.replace("right", "left"))])
    assert figures.pop("relation") == 0
    assert set(figures.values()) == {1.0}


def test_f1_weighs_what_is_missed_and_what_is_made_up() -> None:
    one_of_two = f1_of([(LEFT, "a large red circle on a white background")])
    assert one_of_two["shape"] == pytest.approx(2 / 3)
    assert one_of_two["relation"] == 0
    two_of_one = f1_of([(STARS, "a small red ring and three small pink stars on a gray background")])
    assert two_of_one["colour"] == pytest.approx(2 / 3)


def test_an_incomplete_caption_states_what_it_says_and_no_caption_nothing() -> None:
    assert f1_of([(STARS, "three stars")])["count"] == 1
    assert f1_of([(STARS, "three stars")])["colour"] == 0
    assert f1_of([(STARS, "stars, I think"), (STARS, None)])["shape"] == 0


def test_only_a_full_caption_is_an_answer() -> None:
    assert read_answer(describe(STARS)) == STARS
    assert read_answer("three stars") is None
    assert read_answer("I see stars") is None
    assert read_answer(None) is None
