"""Lines to items: a bad line costs its own item."""

from __future__ import annotations

import json

import pytest

from orchestrator.domain.image_refs import ImageNames, ImageRef
from orchestrator.domain.items import Item, ItemReader
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind, options_for, options_of_item
from orchestrator.domain.names import is_safe_name

UPLOAD = ImageNames("uploads/t/u/")


def read(kind: JobKind, *raw: object) -> list[Item]:
    return list(ItemReader(options_for(kind, {}), UPLOAD).read(raw))


def test_image_names_become_keys_below_the_upload() -> None:
    item, several = read(JobKind.caption, {"image": "a/b.jpg"}, {"id": "x", "image": ["1.png", "2.png"], "seed": 7})
    assert item == Item(0, "a/b.jpg", (ImageRef("uploads/t/u/a/b.jpg"),))
    assert several == Item(1, "x", (ImageRef("uploads/t/u/1.png"), ImageRef("uploads/t/u/2.png")), seed=7)


def test_an_image_may_be_a_part_of_an_object_that_holds_many() -> None:
    part = {"object": "photos.tar", "offset": 512, "num_bytes": 60_000}
    item, several = read(JobKind.caption, {"id": "a", "image": part}, {"id": "b", "image": [part, "c.jpg"]})
    ref = ImageRef("uploads/t/u/photos.tar", 512, 60_000)
    assert item == Item(0, "a", (ref,))
    assert several == Item(1, "b", (ref, ImageRef("uploads/t/u/c.jpg")))
    assert Item.from_line(several.as_line()) == several
    assert Item.index_of(several.as_line().encode()) == 1


def test_urls_are_images_where_the_server_allows_them() -> None:
    url, signed = "https://example.org/a.jpg?b=c", "https://example.org/?signature=" + "x" * 500
    raw = [{"image": url}, {"image": [url, "b.jpg"]}, {"image": signed}, {"image": "https://" + "x" * 4000}]
    for refused in ItemReader(CaptionOptions(), UPLOAD).read(raw):
        assert refused.failure is not None
        assert (refused.failure.code, "JANUS_ALLOW_IMAGE_URLS" in refused.failure.message) == ("url_refused", True)
    first, mixed, long, too_long = ItemReader(CaptionOptions(), ImageNames("uploads/t/u/", allow_urls=True)).read(raw)
    assert first == Item(0, url, (ImageRef(url),))
    assert mixed == Item(1, "1", (ImageRef(url), ImageRef("uploads/t/u/b.jpg")))
    assert long == Item(2, "2", (ImageRef(signed),))
    assert too_long.failure is not None
    assert "4000" in too_long.failure.message
    (alone,) = ItemReader(CaptionOptions(), ImageNames("", allow_urls=True)).read(raw[:1])
    assert alone == first  # needs no upload


@pytest.mark.parametrize(
    ("kind", "raw", "code", "says"),
    [
        (JobKind.caption, b"{not json", "item_invalid", "not JSON"),
        (JobKind.caption, b"\xff\xfe", "item_invalid", "not JSON"),
        (JobKind.caption, b"[1]", "item_invalid", "a list"),
        (JobKind.caption, {"image": "../secret.jpg"}, "item_invalid", "relative name"),
        (JobKind.caption, {"image": "/etc/passwd"}, "item_invalid", "relative name"),
        (JobKind.caption, {"image": []}, "item_invalid", "`image`"),
        (JobKind.caption, {"image": ["a.jpg", 3]}, "item_invalid", "`image`"),
        (JobKind.caption, {"image": {"object": "a.tar", "offset": 0}}, "item_invalid", "num_bytes"),
        (JobKind.caption, {"image": {"object": "a", "offset": 0, "num_bytes": 1, "x": 1}}, "item_invalid", "no others"),
        (JobKind.caption, {"image": {"object": "a", "num_bytes": 1}}, "item_invalid", "offset"),
        (JobKind.caption, {"image": {"object": "a", "sha256": "A" * 64}}, "item_invalid", "image.sha256"),
        (JobKind.caption, {"image": {"object": "a", "sha256": 7}}, "item_invalid", "image.sha256"),
        (JobKind.caption, {"image": "a.jpg", "options": {"avoid": "a"}}, "item_invalid", "options.avoid"),
        (JobKind.caption, {"image": "a.jpg", "options": {"avoid": [1]}}, "item_invalid", "options.avoid"),
        (JobKind.caption, {"image": "a.jpg", "options": {"min_tokens": 600}}, "item_invalid", "options.min_tokens"),
        (JobKind.caption, {"image": {"object": 7, "offset": 0, "num_bytes": 1}}, "item_invalid", "object"),
        (JobKind.caption, {"image": {"object": "../a", "offset": 0, "num_bytes": 1}}, "item_invalid", "relative name"),
        (JobKind.caption, {"image": {"object": "a", "offset": -1, "num_bytes": 1}}, "item_invalid", "image.offset"),
        (JobKind.caption, {"image": {"object": "a", "offset": 0, "num_bytes": 0}}, "item_invalid", "image.num_bytes"),
        (JobKind.caption, {"image": {"object": "a", "offset": 0, "num_bytes": "9"}}, "item_invalid", "image.num_bytes"),
        (JobKind.caption, {"image": "a.jpg", "sed": 1}, "item_invalid", "'sed'"),
        (JobKind.caption, {"image": "a.jpg", "seed": -1}, "item_invalid", "`seed`"),
        (JobKind.caption, {"image": "a.jpg", "seed": True}, "item_invalid", "`seed`"),
        (JobKind.caption, {"image": "a.jpg", "id": ""}, "item_invalid", "`id`"),
        (JobKind.caption, {"image": "a.jpg", "options": [1]}, "item_invalid", "`options`"),
        (JobKind.caption, {"image": "a.jpg", "options": {"guidance": 3}}, "item_invalid", "max_tokens"),
        (JobKind.caption, {"image": "a.jpg", "options": {"seed": 3}}, "item_invalid", "the item itself"),
        (JobKind.caption, {"image": "a.jpg", "options": {"top_k": True}}, "item_invalid", "options.top_k"),
        (JobKind.caption, {"image": "a.jpg", "options": {"max_tokens": 1.5}}, "item_invalid", "options.max_tokens"),
        (JobKind.generate, {"prompt": "a", "options": {"guidance": 500}}, "item_invalid", "0 to 100"),
        (JobKind.generate, {"prompt": "a", "options": {"solver": "rk4"}}, "item_invalid", "options.solver"),
        (JobKind.generate, {"prompt": "  "}, "prompt_empty", "empty"),
        (JobKind.generate, {}, "prompt_empty", "empty"),
        (JobKind.generate, {"prompt": "x" * 20_001}, "item_invalid", "20001"),
    ],
)
def test_bad_line_becomes_its_items_failure(kind: JobKind, raw: object, code: str, says: str) -> None:
    bad, good = read(kind, raw, {"image": "ok.jpg"} if kind is JobKind.caption else {"prompt": "ok"})
    assert bad.failure is not None
    assert (bad.index, bad.failure.code) == (0, code)
    assert says in bad.failure.message
    assert "items[0]" in bad.failure.message
    assert good.failure is None


def test_second_item_with_an_id_fails_and_the_first_does_not() -> None:
    first, second, third = read(JobKind.caption, {"image": "a.jpg"}, {"image": "a.jpg"}, {"id": "b", "image": "a.jpg"})
    assert first.failure is None
    assert second.failure is not None
    assert "used before" in second.failure.message
    assert third.failure is None


def test_an_image_may_come_with_its_digest() -> None:
    digest = "0a" * 32
    part = {"object": "photos.tar", "offset": 512, "num_bytes": 9, "sha256": digest}
    [both] = read(JobKind.caption, {"id": "x", "image": [part, {"object": "b.jpg", "sha256": digest}]})
    assert [(image.num_bytes, image.sha256) for image in both.images] == [(9, digest), (None, digest)]
    assert Item.from_line(both.as_line()) == both


def test_item_survives_its_line() -> None:
    for item in read(JobKind.generate, {"prompt": "eine rote Tür\n\u2028", "seed": 3}, b"nonsense"):
        assert Item.from_line(item.as_line()) == item
        assert "\n" not in item.as_line()


def test_an_item_may_have_options_of_its_own() -> None:
    (item,) = read(JobKind.generate, {"prompt": "a", "options": {"guidance": 3, "steps": None, "solver": "heun"}})
    assert item.failure is None
    assert Item.from_line(item.as_line()) == item
    job = GenerateOptions(images=2, guidance=7.0, steps=9)
    assert options_of_item(job, item.options) == GenerateOptions(images=2, guidance=3, solver="heun")
    assert options_of_item(job, None) == job


def test_half_a_surrogate_pair_is_replaced() -> None:
    (item,) = read(JobKind.generate, json.loads(r'{"prompt": "a \ud800 b"}'))
    assert item.prompt == "a ? b"


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "ä b#?%.png", "..a"])
def test_safe_names(name: str) -> None:
    assert is_safe_name(name)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\\b", "a\nb", "x" * 701])
def test_unsafe_names(name: str) -> None:
    assert not is_safe_name(name)
