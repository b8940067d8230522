"""The endless data of the sample world: a function of the step, shared by processes, without what is held out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from janus_core.evaluation import evaluate
from janus_core.evaluation.captions import describe, parse
from janus_core.evaluation.partial import USUAL_BACKGROUND, matches
from janus_core.evaluation.render import Placed, compose, render
from janus_core.evaluation.scene import COLOURS, KINDS, SHAPES, SIZES, Group, Scene, is_held_out, sample_scene
from janus_core.evaluation.scores import read_answer
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training import streams
from janus_core.training.batches import IGNORED, MixedBatch, RowMaker, TextBatch
from janus_core.training.loop import Stream
from janus_core.training.presets import DROP_PROMPT, Phase, Ratio
from janus_core.training.streams import Drawn, Mixture, Pairs, Pictures, Sentences, label_patches, spell

IMAGES = ImageSettings(16, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
LARGE = replace(IMAGES, image_size=64)
PHASE = Phase("p", 100, 12, 1e-3, 0, stage=2, ratio=Ratio(2, 1, 3))
LAST = replace(PHASE, name="last", stage=3)

Make = Callable[[int, Phase, RowMaker], Stream]
STREAMS: dict[str, Make] = {
    "pictures": lambda seed, phase, rows: Pictures(IMAGES, seed, phase),
    "pairs": lambda seed, phase, rows: Pairs(IMAGES, seed, phase, rows, 4),
    "sentences": lambda seed, phase, rows: Sentences(IMAGES, seed, phase, rows, 4),
    "mixture": lambda seed, phase, rows: Mixture(IMAGES, seed, phase, rows),
}
each_stream = pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)


def tensors(batch: Any) -> list[Tensor]:
    """Everything a batch holds, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    parts = [getattr(batch, field.name) for field in fields(batch)] if is_dataclass(batch) else batch
    return [tensor for part in parts if part is not None for tensor in tensors(part)]


def is_same(a: Any, b: Any) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


@each_stream
def test_a_batch_follows_from_seed_phase_and_step_alone(make: Make, rows: RowMaker) -> None:
    first, second = make(1, PHASE, rows), make(1, PHASE, rows)
    later = second.batch(7, 0, 1)
    assert is_same(first.batch(3, 0, 1), second.batch(3, 0, 1))
    assert is_same(first.batch(7, 0, 1), later)
    for other in (first.batch(4, 0, 1), make(2, PHASE, rows).batch(3, 0, 1), make(1, LAST, rows).batch(3, 0, 1)):
        assert not is_same(first.batch(3, 0, 1), other)


@pytest.mark.parametrize("num_processes", [2, 3, 5])
@each_stream
def test_several_processes_see_together_the_rows_of_one(make: Make, num_processes: int, rows: RowMaker) -> None:
    stream = make(0, PHASE, rows)
    alone = each_row(stream.batch(5, 0, 1))
    shares = [each_row(stream.batch(5, process, num_processes)) for process in range(num_processes)]
    for kind, whole in alone.items():
        dealt = [share.get(kind, []) for share in shares]
        assert [dealt[row % num_processes][row // num_processes] for row in range(len(whole))] == whole
        assert sum(map(len, dealt)) == len(whole)


def each_row(batch: Any) -> dict[str, list[Any]]:
    """Each kind's rows, without their padding."""
    kinds = {"": batch}
    if isinstance(batch, MixedBatch):
        kinds = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {
        kind: [[unpadded(row) for row in parts] for parts in zip(*tensors(part), strict=True)]
        for kind, part in kinds.items()
        if part is not None
    }


def unpadded(row: Tensor) -> Any:
    values = row.tolist()
    while isinstance(values, list) and values[-1] in (0, IGNORED):
        values.pop()
    return values


Shown = list[tuple[str, Scene]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Every scene that streams put into words or pictures from now on, and how; the pictures are left blank."""
    seen: Shown = []
    blank = np.zeros((3, 1, 1), np.float32)

    def watch(name: str) -> None:
        tell = getattr(streams, name)
        monkeypatch.setattr(streams, name, lambda scene, *more: seen.append((name, scene)) or tell(scene, *more))

    for name in ("describe", "phrase", "prompt_for", "compose", "spell"):
        watch(name)
    monkeypatch.setattr(streams._World, "picture", lambda _, scene, *how: seen.append(("picture", scene)) or blank)
    return seen


@pytest.mark.parametrize("phase", [PHASE, LAST])
@each_stream
def test_held_out_combinations_are_never_shown(make: Make, phase: Phase, rows: RowMaker, shown: Shown) -> None:
    stream = make(0, replace(phase, batch_size=600), rows)
    for step in range(4):
        stream.batch(step, 0, 1)
    assert len(shown) >= 2400
    assert sum(scene.relation is not None for _, scene in shown) > 0.1 * len(shown)
    assert not any(is_held_out(scene) for _, scene in shown)


def test_no_words_of_a_batch_tell_a_held_out_combination(rows: RowMaker, tokenizer: Tokenizer) -> None:
    batch = Mixture(IMAGES, 3, replace(LAST, batch_size=300), rows).batch(0, 0, 1)
    told = [read_answer(each) for part in (batch.understanding, batch.text) for each in answers(part, tokenizer)]
    assert len(told) == 150
    assert not any(scene is None or is_held_out(scene) for scene in told)


def answers(batch: Any, tokenizer: Tokenizer) -> list[str]:
    """What is learnt, in words."""
    return [tokenizer.decode([id for id in row if id != IGNORED]).strip() for row in batch.targets.tolist()]


def test_a_mixture_holds_its_kinds_in_their_ratio(rows: RowMaker) -> None:
    batch = Mixture(IMAGES, 0, PHASE, rows).batch(0, 0, 1)
    assert [len(part.ids) for part in (batch.understanding, batch.text, batch.generation) if part] == [4, 2, 6]
    first = replace(PHASE, ratio=Ratio(1, 0, 3), first_ratio=(2, Ratio(0, 1, 0)))
    stream = Mixture(IMAGES, 0, first, rows)
    assert kinds(stream.batch(1, 0, 1)) == [False, True, False]
    assert kinds(stream.batch(2, 0, 1)) == [True, False, True]


def kinds(batch: MixedBatch) -> list[bool]:
    return [part is not None for part in (batch.understanding, batch.text, batch.generation)]


def test_a_picture_in_words_tells_every_look_of_every_object_and_the_background() -> None:
    scene = Scene((Group(1, "small", "red", "ring"), Group(1, "large", "blue", "star")), "gray", "left")
    placed = [Placed(scene.groups[0], (0.25, 0.25), 0.11), Placed(scene.groups[1], (0.75, 0.75), 0.2)]
    grids = [spell(scene, placed, 8, random.Random(seed)).split(" ") for seed in range(20)]
    assert {len(words) for words in grids} == {64}
    assert {word for words in grids for word in words} == {"small", "red", "ring", "large", "blue", "star", "gray"}
    assert {words[8 * row + column] for words in grids for row in (1, 2) for column in (1, 2)} == {
        "small",
        "red",
        "ring",
    }
    assert {words[7] for words in grids} == {"gray"}


def test_noise_lies_over_what_is_read_and_not_over_what_is_drawn(rows: RowMaker) -> None:
    phase = replace(PHASE, batch_size=120)
    mixed = Mixture(LARGE, 0, phase, rows).batch(0, 0, 1)
    assert mixed.understanding is not None
    assert mixed.generation is not None
    for drawn in (Pictures(LARGE, 0, phase).batch(0, 0, 1), mixed.generation.pixels):
        assert min(map(share_of_paper, drawn)) > 0.3
    assert sum(share_of_paper(picture) < 0.1 for picture in mixed.understanding.pixels) > 20


def share_of_paper(picture: Tensor) -> float:
    """Of the pixels, how many have the commonest colour to the last level."""
    counts = picture.flatten(1).unique(dim=1, return_counts=True)[1]
    return float(counts.max()) / picture[0].numel()


def test_the_language_model_reads_and_writes_pictures_in_words(rows: RowMaker, tokenizer: Tokenizer) -> None:
    batch = Sentences(IMAGES, 0, replace(PHASE, batch_size=400), rows, 4).batch(0, 0, 1)
    said = answers(batch, tokenizer)
    written = [words for words in said if len(words.split(" ")) == 16 and "background" not in words]
    described = [read_answer(words) for words in said if words not in written]
    assert 70 < len(written) < 130
    assert not any(scene is None or is_held_out(scene) for scene in described)


def test_what_is_drawn_is_of_the_kinds_that_are_asked_for(rows: RowMaker, shown: Shown) -> None:
    drawing = replace(PHASE, ratio=Ratio(1, 0, 9), batch_size=200)
    Mixture(IMAGES, 0, drawing, rows, Drawn({"relation": 0.75, "several": 0.25})).batch(0, 0, 1)
    read = [scene.kind for how, scene in shown if how == "describe"]
    drawn = [scene.kind for how, scene in shown if how == "prompt_for"]
    assert set(read) == set(KINDS)
    assert set(drawn) == {"relation", "several"}
    assert 110 < drawn.count("relation") < 160


def test_what_a_prompt_leaves_unsaid_may_be_drawn_as_usual(rows: RowMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, Scene]] = []
    asked = Mixture._asked

    def note(stream: Mixture, rng: random.Random) -> tuple[str, Scene]:
        drawn.append(asked(stream, rng))
        return drawn[-1]

    monkeypatch.setattr(Mixture, "_asked", note)
    drawing = replace(PHASE, ratio=Ratio(0, 0, 1), batch_size=300)
    Mixture(IMAGES, 0, drawing, rows, Drawn(is_usual=True)).batch(0, 0, 1)
    unsaid = [(said, scene) for prompt, scene in drawn if (said := parse(prompt)) and said.to_scene() is None]
    assert len(drawn) == 300
    assert len(unsaid) > 100
    assert all(said is not None and matches(said, scene) and not is_held_out(scene) for said, scene in unsaid)
    assert {scene.background for said, scene in unsaid if said.background is None} == {USUAL_BACKGROUND}


def test_about_a_tenth_of_all_prompts_is_dropped_and_its_words_are_there(
    rows: RowMaker, tokenizer: Tokenizer, shown: Shown
) -> None:
    drawing = replace(PHASE, ratio=Ratio(0, 0, 1), batch_size=3000)
    batch = Mixture(IMAGES, 0, drawing, rows).batch(0, 0, 1).generation
    assert batch is not None
    assert abs(batch.dropped.float().mean() - DROP_PROMPT) < 0.02
    for ids, length in zip(batch.ids.tolist(), batch.lengths.tolist(), strict=True):
        assert ids[length - 1] == tokenizer.image_start_id
        assert parse(tokenizer.decode(ids[:length]).split(": ")[1].split("\n")[0]) is not None


def test_an_answer_describes_the_picture_beside_it(rows: RowMaker, tokenizer: Tokenizer, shown: Shown) -> None:
    reading = replace(PHASE, ratio=Ratio(1, 0, 0))
    batch = Mixture(IMAGES, 0, reading, rows).batch(0, 0, 1).understanding
    assert answers(batch, tokenizer) == [describe(scene) for how, scene in shown if how == "picture"]


def test_the_last_stage_learns_text_as_dialogue(rows: RowMaker, tokenizer: Tokenizer) -> None:
    user_id = tokenizer.encode(chat.BRACKETED.user)[1]
    for phase, is_dialogue in ((PHASE, False), (LAST, True)):
        text = Mixture(IMAGES, 0, phase, rows).batch(0, 0, 1).text
        assert isinstance(text, TextBatch)
        for ids, targets in zip(text.ids.tolist(), text.targets.tolist(), strict=True):
            assert (targets[0] == IGNORED) == is_dialogue
            assert (user_id in ids) == is_dialogue


@pytest.mark.parametrize("seed", [0, 1])
def test_training_never_sees_the_pictures_of_evaluation(seed: int, rows: RowMaker) -> None:
    judged = set()
    for number in range(200):
        for name in ("scene", "held out"):
            rng = evaluate.stream(seed, name, number)
            scene = sample_scene(rng, held_out=name == "held out")
            judged.add(render(scene, rng, 16).tobytes())
    assert len(judged) == 400
    trained = Pictures(IMAGES, seed, replace(PHASE, batch_size=400)).batch(0, 0, 1)
    as_bytes = ((trained * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    assert not judged & {picture.numpy().tobytes() for picture in as_bytes}


def test_the_streams_of_training_bear_other_names_than_those_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[bytes] = []
    digest = streams.hashlib.sha256
    monkeypatch.setattr(streams.hashlib, "sha256", lambda name: names.append(name) or digest(name))
    world = streams._World(IMAGES, 7, PHASE)
    assert len(world.rngs("text", 3, 5, 0, 1)) == 3
    evaluate.stream(7, "scene", 0)
    assert names == [*(f"train:7:p:text:5:{row}".encode() for row in range(3)), b"evaluate:7:scene:0"]


def test_every_patch_is_told_what_stands_on_it() -> None:
    red, blue = Group(1, "large", "red", "circle"), Group(1, "small", "blue", "star")
    picture, placed = compose(Scene((red, blue), "white", "left"), random.Random(1), 64)
    labels = torch.tensor(label_patches(placed, 8)).view(8, 8, 3)
    looks = {tuple(label) for label in labels.flatten(0, 1).tolist()}
    told = [
        (1 + SHAPES.index(group.shape), 1 + COLOURS.index(group.colour), 1 + SIZES.index(group.size))
        for group in (red, blue)
    ]
    assert looks == {(0, 0, 0), *told}
    for each, look in zip(placed, told, strict=True):
        column, row = (int(place * 8) for place in each.centre)
        assert tuple(labels[row, column].tolist()) == look
    pixels = np.asarray(picture).astype(int).reshape(8, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4)
    is_empty = (np.abs(pixels - 250) < 40).all(axis=(2, 3, 4))
    assert is_empty[(labels[..., 0] == 0).numpy()].mean() >= 0.95
    assert (~is_empty & (labels[..., 0] > 0).numpy()).sum() >= 8


def test_scenes_of_a_family_are_like_their_first_and_not_it(rows: RowMaker, shown: Shown) -> None:
    Pairs(IMAGES, 0, replace(PHASE, batch_size=8), rows, 4).batch(0, 0, 1)
    drawn = [scene for how, scene in shown if how == "compose"]
    assert len(drawn) == 8
    for first, *others in (drawn[:4], drawn[4:]):
        assert all(other != first and len(other.groups) == len(first.groups) for other in others)
