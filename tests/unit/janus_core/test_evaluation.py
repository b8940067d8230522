"""Evaluation with engines that are right and wrong in known ways."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_core.engine.engine import EngineInfo
from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected
from janus_core.evaluation import __main__ as program
from janus_core.evaluation.captions import describe, parse
from janus_core.evaluation.detector import detect
from janus_core.evaluation.evaluate import KEPT_PICTURES, QUESTION, Plan, evaluate, stream
from janus_core.evaluation.partial import PartialScene
from janus_core.evaluation.prompts import CATEGORIES, all_prompts, spread_prompts
from janus_core.evaluation.render import render
from janus_core.evaluation.report import report, tabulate
from janus_core.evaluation.scene import BACKGROUNDS, COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, Group, Scene
from janus_core.evaluation.sheet import draw_sheet

PLAN = Plan(seed=5, scenes=24, prompts=12, images=2)


def look(picture: Image.Image) -> str:
    scene = detect(picture)
    assert scene is not None
    return describe(scene)


def draw(prompt: str, seed: int) -> Image.Image:
    """What was asked for, in large and before white; two objects that nobody placed stand side by side."""
    said = parse(prompt)
    assert said is not None
    return render(imagine(said), random.Random(seed))


def imagine(said: PartialScene) -> Scene:
    groups = [Group(g.count, "large", g.colour or COLOURS[n], g.shape) for n, g in enumerate(said.groups)]
    return Scene(tuple(groups), "white", said.relation or ("left" if len(groups) == 2 else None))


class FakeEngine:
    """Answers with the functions it is given, and remembers what it was asked."""

    info = EngineInfo("fake", "janus", "r", "cpu", "float32", "none", 64, 4096, 0)

    def __init__(
        self,
        say: Callable[[Image.Image], str | Rejected] = look,
        paint: Callable[[str, int], Image.Image | Rejected] = draw,
    ) -> None:
        self._say, self._paint = say, paint
        self.captions: list[CaptionRequest] = []
        self.drawings: list[GenerateRequest] = []

    def caption(self, requests: Sequence[CaptionRequest]) -> list[Caption | Rejected]:
        self.captions += requests
        answers = [self._say(request.image) for request in requests if isinstance(request.image, Image.Image)]
        return [each if isinstance(each, Rejected) else Caption(each, (), "stop") for each in answers]

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GeneratedImage | Rejected]:
        self.drawings += requests
        answers = [self._paint(request.prompt, request.seed) for request in requests]
        return [each if isinstance(each, Rejected) else GeneratedImage(each, None) for each in answers]


def test_an_engine_that_is_always_right_has_every_figure_at_one() -> None:
    figures = report(evaluate(FakeEngine(), PLAN))
    captioning, generation = figures["captioning"], figures["generation"]
    assert captioning["all_attributes"] == captioning["held_out_combinations"] == 1
    assert captioning["counts"] == {"all_attributes": [24, 24], "held_out_combinations": [24, 24]}
    assert set(captioning["f1"].values()) == {1.0}
    assert generation["mean"] == 1
    assert [generation[name] for name in CATEGORIES] == [1.0] * 6
    assert generation["counts"] == {name: [4, 4] for name in CATEGORIES}
    assert all(0 < low < high == 1 for low, high in generation["intervals"].values())
    assert (figures["model"]["name"], figures["seed"], set(figures["seconds"])) == (
        "fake",
        5,
        {"captioning", "generation"},
    )


def test_one_wrong_word_makes_a_caption_wrong() -> None:
    def call_red_blue(picture: Image.Image) -> str:
        return look(picture).replace(" red ", " blue ")

    evaluation = evaluate(FakeEngine(say=call_red_blue), PLAN)
    reds = [each for each in evaluation.seen if " red " in describe(each.scene)]
    assert 0 < len(reds) < 24
    assert [each for each in evaluation.seen if not each.is_right] == reds
    figures = report(evaluation)["captioning"]
    assert figures["all_attributes"] == pytest.approx(1 - len(reds) / 24)
    assert figures["f1"]["colour"] < 1
    assert figures["f1"]["size"] == figures["f1"]["count"] == figures["f1"]["background"] == 1


def test_a_mirrored_relation_fails_held_out_combinations_alone_by_their_relation() -> None:
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}

    def mirror(picture: Image.Image) -> str:
        words = look(picture).split()
        return " ".join(opposite.get(word, word) for word in words)

    figures = report(evaluate(FakeEngine(say=mirror), PLAN))["captioning"]
    assert figures["held_out_combinations"] == 0
    assert figures["held_out_f1"]["relation"] == 0
    assert figures["held_out_f1"]["colour"] == 1
    assert 0 < figures["all_attributes"] < 1


def test_rejected_requests_count_as_wrong_and_are_told_by_code() -> None:
    no = Rejected("option_invalid", "no")
    engine = FakeEngine(say=lambda _: no, paint=lambda prompt, seed: no)
    evaluation = evaluate(engine, PLAN)
    figures = report(evaluation)
    assert figures["captioning"]["all_attributes"] == 0
    assert figures["captioning"]["rejected"] == {"option_invalid": 48}
    assert figures["captioning"]["not_read"] == 0
    assert figures["generation"]["mean"] == 0
    assert figures["generation"]["rejected"] == {"option_invalid": 24}
    assert figures["generation"]["no_scene"] == 0
    draw_sheet(evaluation)


def test_free_words_and_empty_pictures_are_counted_apart() -> None:
    blank = Image.new("RGB", (64, 64), "white")
    engine = FakeEngine(say=lambda _: "I see\x07 shapes " + "and shapes " * 99, paint=lambda prompt, seed: blank)
    evaluation = evaluate(engine, PLAN)
    figures = report(evaluation)
    assert figures["captioning"]["not_read"] == 48
    assert figures["generation"]["no_scene"] == 24
    assert figures["generation"]["mean"] == 0
    draw_sheet(evaluation)


def test_an_engine_that_swaps_two_things_fails_where_that_matters() -> None:
    def swap(prompt: str, seed: int) -> Image.Image:
        said = parse(prompt)
        assert said is not None
        scene = imagine(said)
        if scene.kind == "relation":
            first, second = scene.groups
            swapped = (
                Group(1, "large", second.colour, first.shape),
                Group(1, "large", first.colour, second.shape),
            )
            scene = Scene(swapped[::-1], "white", scene.relation)
        return render(scene, random.Random(seed))

    figures = report(evaluate(FakeEngine(paint=swap), PLAN))["generation"]
    wrong = {name for name in CATEGORIES if figures[name] == 0}
    assert wrong == {"position", "colour_attribution"}
    assert figures["mean"] == pytest.approx(4 / 6)


def test_what_is_asked_is_plain_greedy_and_with_the_options_of_the_plan() -> None:
    engine = FakeEngine()
    evaluate(engine, Plan(seed=1, scenes=2, prompts=6, images=3))
    assert {(request.prompt, request.temperature) for request in engine.captions} == {(QUESTION, 0.0)}
    usual = GenerateRequest("")
    assert {(r.guidance, r.temperature, r.steps) for r in engine.drawings} == {
        (usual.guidance, usual.temperature, usual.steps)
    }
    assert len({request.seed for request in engine.drawings}) == 18
    chosen = FakeEngine()
    evaluate(chosen, Plan(scenes=0, prompts=1, images=1, guidance=2.0, temperature=0.5, steps=7))
    (request,) = chosen.drawings
    assert (request.guidance, request.temperature, request.steps) == (2.0, 0.5, 7)


def test_the_same_seed_asks_the_same_and_more_of_it_asks_the_same_first() -> None:
    few, again, more, other = FakeEngine(), FakeEngine(), FakeEngine(), FakeEngine()
    for engine, plan in (
        (few, Plan(seed=3, scenes=4, prompts=6, images=1)),
        (again, Plan(seed=3, scenes=4, prompts=6, images=1)),
        (more, Plan(seed=3, scenes=8, prompts=12, images=1)),
        (other, Plan(seed=4, scenes=4, prompts=6, images=1)),
    ):
        evaluate(engine, plan)
    assert few.drawings == again.drawings == more.drawings[:6]
    assert few.drawings != other.drawings
    first = [np.asarray(request.image) for request in few.captions[:4]]
    assert all(np.array_equal(a, np.asarray(b.image)) for a, b in zip(first, more.captions[:4], strict=True))
    assert not any(np.array_equal(a, np.asarray(b.image)) for a, b in zip(first, other.captions[:4], strict=True))


def test_streams_bear_the_name_of_evaluation() -> None:
    assert stream(1, "scene", 2).random() == stream(1, "scene", 2).random()
    draws = {stream(seed, name, n).random() for seed in (1, 2) for name in ("scene", "image") for n in (1, 2)}
    assert len(draws) == 8


def test_parts_that_are_not_asked_have_no_figures() -> None:
    figures = report(evaluate(FakeEngine(), Plan(scenes=0, prompts=0)))
    assert figures["captioning"]["all_attributes"] is None
    assert figures["captioning"]["f1"]["shape"] is None
    assert figures["generation"]["mean"] is None
    assert len(tabulate(figures)) == 15


def test_pictures_beyond_those_that_are_shown_are_not_kept() -> None:
    evaluation = evaluate(FakeEngine(), Plan(scenes=KEPT_PICTURES + 4, prompts=6, images=KEPT_PICTURES + 4))
    assert [each.picture is not None for each in evaluation.seen] == [True] * KEPT_PICTURES + [False] * 4
    for name in CATEGORIES:
        kept = [each.picture is not None for each in evaluation.drawn if each.category == name]
        assert kept == [True] * KEPT_PICTURES + [False] * 4


def test_progress_is_told_to_the_end() -> None:
    heard: list[tuple[str, int, int]] = []
    evaluate(FakeEngine(), Plan(scenes=70, prompts=1, images=2), lambda *what: heard.append(what))
    held_out = "captions of held-out combinations"
    assert heard == [
        ("captions", 64, 70),
        ("captions", 70, 70),
        (held_out, 64, 70),
        (held_out, 70, 70),
        ("images", 2, 2),
    ]


def test_prompts_are_spread_evenly_and_not_repeated_early() -> None:
    prompts = spread_prompts(36, random.Random(0))
    assert [category for category, _ in prompts] == list(CATEGORIES) * 6
    assert len(set(prompts)) == 36
    assert spread_prompts(36, random.Random(0)) == prompts != spread_prompts(36, random.Random(1))
    assert len(spread_prompts(100, random.Random(0))) == 100


def test_prompts_are_of_their_category_and_all_can_be_read() -> None:
    prompts = all_prompts()
    assert {name: len(each) for name, each in prompts.items()} == {
        "single_object": 6,
        "two_objects": 30,
        "counting": 18,
        "colours": 48,
        "position": 120,
        "colour_attribution": 1680,
    }
    for each in prompts.values():
        assert len(set(each)) == len(each)
        assert all(parse(prompt) is not None for prompt in each)
    assert "a star" in prompts["single_object"]
    assert "a circle and a star" in prompts["two_objects"]
    assert "three stars" in prompts["counting"]
    assert "an orange circle" in prompts["colours"]
    assert "a circle to the left of a star" in prompts["position"]
    assert "a red circle and a blue star" in prompts["colour_attribution"]


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("janus_core.load_engine", lambda model, **options: FakeEngine(), raising=False)
    return program.main(["--model", "any", "--scenes", "2", "--prompts", "6", "--images", "1", *arguments])


def test_the_program_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--json", "--seed", "9") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["captioning"]["all_attributes"] == 1
    assert figures["seed"] == 9
    assert figures["plan"] == {
        "scenes": 2,
        "prompts": 6,
        "images": 1,
        "guidance": None,
        "temperature": None,
        "steps": None,
    }


def test_the_program_prints_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["captioning: all attributes", "1.000", "0.342 to 1.000", "2 / 2"] in lines
    assert {len(line) for line in lines} == {4}


def test_the_program_writes_figures_and_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    assert _run(monkeypatch, "--json", "--out", str(out)) == 0
    assert json.loads((out / "evaluation.json").read_text()) == json.loads(capsys.readouterr().out)
    with Image.open(out / "evaluation.png") as picture:
        assert picture.width > 1000


def test_a_model_that_is_not_there_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--model", "nowhere"]) == 1
    assert "neither a folder nor a model" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--scenes", "-1"), ("--prompts", "x"), ("--images", "1.5"), ("--steps", "-2")])
def test_counts_are_whole_numbers(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["--model", "any", *wrong])
    assert "is not a whole number" in capsys.readouterr().err


def test_the_page_names_the_words_of_the_world() -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, words in (
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("background", BACKGROUNDS),
        ("relation", RELATIONS),
    ):
        assert f"| {name} | {', '.join(words)}" in page
    assert f"{len(HELD_OUT)} of the {len(SHAPES) * len(COLOURS) * len(RELATIONS)} combinations" in page
    assert QUESTION in page
