"""An item made again: what is the same, and what is said where something is not."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from orchestrator.client._replays import describe_pixels
from orchestrator.domain.replays import compare_lines

LINE = {"index": 9, "id": "a", "caption": "a cat", "num_tokens": 2, "finish_reason": "stop", "seed": 9, "revision": "r"}
DRAWN = {"index": 0, "id": "a", "images": [{"sha256": "1"}, {"sha256": "2"}], "revision": "r"}
FAILED = {"index": 0, "id": "a", "failure": {"code": "image_unreadable", "message": "m", "attempts": 1}}


def test_index_model_and_attempts_do_not_matter() -> None:
    assert compare_lines(LINE, LINE | {"index": 0, "model": "m", "reused": True}).same
    assert compare_lines(DRAWN, DRAWN | {"index": 0}).same
    assert compare_lines(FAILED, FAILED | {"failure": FAILED["failure"] | {"attempts": 3, "message": "n"}}).same  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"caption": "a dog"}, "caption was 'a cat' and is 'a dog'"),
        ({"num_tokens": 3}, "num_tokens was 2 and is 3"),
        ({"finish_reason": "length"}, "finish_reason was 'stop' and is 'length'"),
    ],
)
def test_each_field_is_named(change: dict[str, Any], words: str) -> None:
    found = compare_lines(LINE, LINE | change)
    assert (found.same, found.words, found.same_weights) == (False, (words,), True)


def test_failures_pictures_and_weights() -> None:
    assert compare_lines(LINE, FAILED).words == ("before it had a result and now it failed with image_unreadable",)
    assert compare_lines(DRAWN, DRAWN | {"images": [{"sha256": "1"}, {"sha256": "3"}]}).images == (1,)
    assert compare_lines(DRAWN, DRAWN | {"images": [{"sha256": "1"}]}).images == (1,)
    other = compare_lines(LINE, LINE | {"revision": "s"})
    assert (other.same, other.same_weights, other.revisions) == (True, False, ("r", "s"))


def encoded(picture: Image.Image, **options: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", **options)
    return data.getvalue()


def test_pixels_that_differ_are_counted() -> None:
    picture = Image.new("RGB", (16, 24), (10, 20, 30))
    other = picture.copy()
    other.putpixel((3, 20), (10, 20, 31))
    other.putpixel((4, 20), (5, 20, 30))
    assert describe_pixels(encoded(picture), encoded(other)) == "2 of 384 pixels differ, by 5 of 255 at most"
    assert "the same pixels" in describe_pixels(encoded(picture), encoded(picture, compress_level=0))
    assert "16 x 24 px and is 24 x 16" in describe_pixels(
        encoded(picture), encoded(picture.transpose(Image.Transpose.ROTATE_90))
    )
