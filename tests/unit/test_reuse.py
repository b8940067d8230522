"""When two items ask the same, who computes what in one process, and what a client sends of equal files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.client import _bundles
from orchestrator.client._bundles import Packer
from orchestrator.domain.identity import Identities
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, InvalidRequestValue, Options
from workers.board import Answered, Board

WEIGHTS = {"model": "m", "revision": "r", "dtype": "float32", "quantize": "none"}
GREEDY, SAMPLED, DRAWN = CaptionOptions(), CaptionOptions(temperature=1), GenerateOptions()


def identity(options: Options, **values: Any) -> UUID:
    asked: dict[str, Any] = {
        "team_id": "t",
        "weights": WEIGHTS,
        "prompt": "p",
        "seed": 1,
        "images": ["a", "b"],
    } | values
    return Identities(asked.pop("team_id"), asked.pop("weights"), options).of(**asked)


@pytest.mark.parametrize(
    "values",
    [
        {"team_id": "u"},
        {"weights": WEIGHTS | {"revision": "s"}},
        {"weights": WEIGHTS | {"dtype": "bfloat16"}},
        {"prompt": "q"},
        {"images": ["b", "a"]},
        {"images": ["ab"]},
        {"images": ["a"], "prompt": "b p"},
        {"images": [], "prompt": "a b p"},
        {"seed": 2},
    ],
)
def test_whatever_may_change_an_answer_changes_the_identity(values: dict[str, Any]) -> None:
    assert identity(SAMPLED) == identity(SAMPLED)
    assert identity(SAMPLED, **values) != identity(SAMPLED)
    assert identity(DRAWN, **values) != identity(DRAWN)


@pytest.mark.parametrize(
    "other",
    [
        replace(SAMPLED, max_tokens=9),
        replace(SAMPLED, temperature=0.5),
        replace(SAMPLED, top_p=0.9),
        replace(SAMPLED, prefix="A"),
        replace(SAMPLED, avoid=("a", "b")),
        replace(SAMPLED, min_tokens=3),
        DRAWN,
    ],
)
def test_so_do_options(other: Options) -> None:
    assert identity(other) != identity(SAMPLED)


def test_a_greedy_caption_draws_nothing_so_its_seed_is_nothing_to_it() -> None:
    assert identity(GREEDY, seed=2) == identity(replace(GREEDY, top_k=5, top_p=0.5)) == identity(GREEDY)
    assert identity(replace(DRAWN, temperature=0.0), seed=2) != identity(replace(DRAWN, temperature=0.0))


def test_the_prompt_of_the_item_counts_and_the_jobs_does_not() -> None:
    assert identity(replace(SAMPLED, prompt="other", seed=7)) == identity(SAMPLED)
    assert identity(replace(SAMPLED, temperature=1.0)) == identity(SAMPLED)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"avoid": "word"}, "list of phrases"),
        ({"avoid": ["a", " "]}, "blank"),
        ({"avoid": ["a"] * 101}, "101 phrases"),
        ({"avoid": ["a" * 101]}, "101 characters"),
        ({"avoid": [7]}, "not text"),
        ({"avoid": ["\ud800"]}, "surrogate"),
        ({"prefix": "x" * 2001}, "2001 characters"),
        ({"prefix": "\x00"}, "NUL"),
        ({"min_tokens": 513}, "max_tokens, 512"),
        ({"min_tokens": -1}, "0 to max_tokens"),
    ],
)
def test_filters_that_cannot_be_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestValue, match=says):
        CaptionOptions(**values)
    assert CaptionOptions(avoid=["a"]) == CaptionOptions(avoid=("a",))  # type: ignore[arg-type]


def test_the_first_computes_and_the_others_wait_for_it() -> None:
    board, one = Board(seconds=60), uuid4()
    assert board.take(one) is None
    waiting = [board.take(one), board.take(one)]
    assert waiting[0] is waiting[1] is not None
    assert not waiting[0].done()
    answered = Answered(one, "job", {"caption": "c"})
    board.settle(one, answered)
    later = board.take(one)
    assert later is not None
    assert waiting[0].result(0) is later.result(0) is answered
    board.forget(one)
    assert board.take(one) is None


def test_where_nothing_came_of_it_one_of_those_who_wait_computes() -> None:
    board, one = Board(seconds=60), uuid4()
    assert board.take(one) is None
    waiting = board.take(one)
    board.settle(one, None)
    assert waiting is not None
    assert waiting.result(0) is None
    assert board.take(one) is None
    assert board.take(one) is not None


def test_answers_are_kept_for_a_while_and_not_too_many() -> None:
    short, few = Board(seconds=0), Board(seconds=60, max_kept=2)
    names = [uuid4() for _ in range(3)]
    for board in (short, few):
        for name in names:
            assert board.take(name) is None
            board.settle(name, Answered(name, "job", {}))
    assert short.take(names[2]) is None
    assert few.take(names[0]) is None
    assert few.take(names[2]) is not None


def test_equal_files_have_one_place_as_long_as_they_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bundles, "MAX_KNOWN", 2)
    monkeypatch.setattr(_bundles, "SMALL_FILE_BYTES", 4)
    contents = [b"aa", b"bb", b"aa", b"large", b"aa", b"large", b"bb"]
    paths = [tmp_path / f"{n}.png" for n in range(len(contents))]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    packer = Packer(with_digests=True)
    places = [packer.place(path) for path in paths]
    packer.close()
    first, second, third, large, fourth, again, forgotten = [json.dumps(place) for place in places]
    assert first == third == fourth != second
    assert large == again
    assert forgotten != second, "two files were used since"
    assert sorted(b"".join(each.read()) for each in packer.take()) == [b"aabbbb", b"large"]
    plain = Packer()
    assert [len({json.dumps(plain.place(path)) for path in paths}), "sha256" in json.dumps(plain.place(paths[0]))] == [
        7,
        False,
    ]
