"""Forced beginnings, avoided words, least lengths: they hold, alone and in a batch, and change nothing beside them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from PIL import Image

from janus_core import Caption, CaptionRequest, Engine, Rejected, load_engine
from janus_core.engine.filters import Vocabulary
from janus_core.evaluation.evaluate import QUESTION
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import sample_scene


@pytest.fixture(scope="module", params=["janus-tiny", "janusflow-tiny"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return load_engine(request.param, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def plain(engine: Engine) -> list[CaptionRequest]:
    """Questions about twelve scenes, greedy and sampled."""
    rng = random.Random("filters")
    pictures = [render(sample_scene(rng), rng, engine.info.image_size) for _ in range(12)]
    return [
        CaptionRequest(picture, QUESTION, 64, temperature=0.0 if n % 2 else 1.0, top_p=1.0 if n % 3 else 0.9, seed=n)
        for n, picture in enumerate(pictures)
    ]


def captions(engine: Engine, requests: Sequence[CaptionRequest]) -> list[Caption]:
    answers = engine.caption(requests)
    assert all(isinstance(answer, Caption) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Caption)]


def filtered(requests: Sequence[CaptionRequest], usual: Sequence[Caption]) -> list[CaptionRequest]:
    """Each with a filter that its usual answer breaks."""
    made = []
    for n, (request, answer) in enumerate(zip(requests, usual, strict=True)):
        words = answer.text.split()
        kinds = (
            {"avoid": [words[-1], " ".join(words[1:3])]},
            {"prefix": "In this picture there are"},
            {"min_new_tokens": len(answer.token_ids) + 7},
            {"avoid": [words[0], words[1]], "prefix": "Seen", "min_new_tokens": 40},
        )
        made.append(replace(request, **kinds[n % len(kinds)]))  # type: ignore[arg-type]
    return made


def test_filters_hold(engine: Engine, plain: list[CaptionRequest]) -> None:
    usual = captions(engine, plain)
    asked = filtered(plain, usual)
    for request, answer, before in zip(asked, captions(engine, asked), usual, strict=True):
        added = answer.text.strip().removeprefix(request.prefix)
        assert answer.text.strip().startswith(request.prefix)
        assert answer.text == engine.tokenizer.decode(answer.token_ids)
        assert request.min_new_tokens <= len(answer.token_ids) <= 64
        assert not [phrase for phrase in request.avoid if holds(added, phrase)]
        assert all(holds(before.text, phrase) for phrase in request.avoid)
        assert answer != before


def holds(text: str, phrase: str) -> bool:
    """Whether some word of the text begins so."""
    return re.search(r"(?<!\w)" + re.escape(phrase), text, re.IGNORECASE) is not None


def test_a_filter_holds_alike_alone_and_in_a_batch_and_changes_nothing_beside_it(
    engine: Engine, plain: list[CaptionRequest]
) -> None:
    usual = captions(engine, plain)
    asked = filtered(plain, usual)
    alone = [captions(engine, [request])[0] for request in asked]
    assert captions(engine, asked) == alone
    mixed = [request for pair in zip(plain, asked, strict=True) for request in pair]
    random.Random(3).shuffle(mixed)
    expected = dict(zip(map(id, [*plain, *asked]), [*usual, *alone], strict=True))
    assert captions(engine, mixed) == [expected[id(request)] for request in mixed]


def test_nor_on_how_often_the_host_looks(plain: list[CaptionRequest], engine: Engine) -> None:
    usual = captions(engine, plain)
    mixed = [*filtered(plain, usual), *plain]
    expected = captions(engine, mixed)
    looks = engine._reader._steps_between_looks
    engine._reader._steps_between_looks = 5
    try:
        assert captions(engine, mixed) == expected
    finally:
        engine._reader._steps_between_looks = looks


def test_a_filter_that_nothing_breaks_changes_nothing(engine: Engine, plain: list[CaptionRequest]) -> None:
    harmless = [replace(request, avoid=["photograph", "watermark,"], min_new_tokens=1) for request in plain]
    assert captions(engine, harmless) == captions(engine, plain)


def test_the_usual_beginning_as_a_prefix_gives_the_usual_answer(engine: Engine, plain: list[CaptionRequest]) -> None:
    greedy = [replace(request, temperature=0.0) for request in plain]
    usual = captions(engine, greedy)
    begun = [replace(r, prefix=" ".join(u.text.split()[:2])) for r, u in zip(greedy, usual, strict=True)]
    assert [answer.text for answer in captions(engine, begun)] == [answer.text for answer in usual]
    assert [answer.token_ids for answer in captions(engine, begun)] == [answer.token_ids for answer in usual]


def test_what_no_filter_can_be_is_rejected(engine: Engine) -> None:
    picture = Image.new("RGB", (64, 64))
    wrong: list[dict[str, object]] = [
        {"min_new_tokens": 65},
        {"min_new_tokens": -1},
        {"avoid": "word"},
        {"avoid": ["word", " "]},
        {"avoid": ["\ud800"]},
        {"prefix": "\ud800"},
        {"prefix": "a <image_placeholder> b"},
        {"prefix": "<｜end▁of▁sentence｜>"},
        {"prefix": "long " * 64},
    ]
    asked = [replace(CaptionRequest(picture, "?", 64), **values) for values in wrong]  # type: ignore[arg-type]
    answers = engine.caption(asked)
    assert [answer.code for answer in answers if isinstance(answer, Rejected)] == ["option_invalid"] * len(wrong)


def test_phrases_are_found_however_they_are_cut_into_tokens() -> None:
    """Every text of random tokens is cut at every place, and each next token is judged by a search of the text."""
    dice = random.Random(1)
    pieces = ["a", "art", "Ar", "t", " ", " a", "r", "he", "rt", "s", "\n", "ü", "Ü", "be", "r", "über", "_", "-", "x-"]
    texts = [piece.encode() for piece in pieces] + [b"", b"\xc3", b"\xbc"]
    vocabulary = Vocabulary(texts)
    avoided = ["art", "über", "-", "a rt", "tarts"]
    phrases = {each: vocabulary.phrases(each) for each in avoided}
    num_out = 0
    for _ in range(2000):
        tokens = [dice.randrange(len(texts)) for _ in range(dice.randrange(9))]
        text = b"".join(texts[token] for token in tokens)
        for each in avoided:
            out = {token for phrase in phrases[each] for token in phrase.tokens(phrase.begun(text.lower()))}
            for token, more in enumerate(texts):
                ends = completes(text, more, each)
                assert (token in out) == ends, (text, more, each)
                num_out += ends
    assert num_out > 1000


def completes(text: bytes, more: bytes, avoided: str) -> bool:
    """Whether an occurrence in text + more ends inside `more`."""
    spellings = {avoided.encode().lower(), avoided.upper().encode().lower(), avoided.title().encode().lower()}
    whole = (text + more).lower()
    for spelling in spellings:
        for first in range(len(whole)):
            if not whole.startswith(spelling, first) or first + len(spelling) <= len(text):
                continue
            before = whole[:first]
            is_inner = bool(before) and bool(re.match(rb"[0-9a-z_\x80-\xff]", before[-1:])) and spelling != b"-"
            if not is_inner:
                return True
    return False
