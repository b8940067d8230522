"""Whatever strangers write, our parsers answer with a value or with an error of ours, and in time."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.domain.failures import FAILURE_CODES
from orchestrator.domain.image_refs import ImageNames
from orchestrator.domain.items import MAX_LINE_BYTES, Item, ItemReader
from orchestrator.domain.jobs import JobKind, options_for
from orchestrator.domain.keys import new_key, parse_key
from orchestrator.domain.names import is_safe_name
from orchestrator.domain.urls import UrlRefused, check_url, is_public, is_url
from tests.hostile_images import FORMATS
from tests.unit.test_images import encode, picture
from workers.errors import BadInput
from workers.images import decode_image

# A hang is what takes two seconds, on a machine that may be busy with other things.
fuzzed = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

any_text = st.text(st.characters(codec=None), max_size=80)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(any_text, inside, max_size=4),
    max_leaves=8,
)
hosts = st.sampled_from(
    [
        "a.jpg",
        "../a",
        "a/b.png",
        "http://example.org/a.jpg",
        "HTTP://127.0.0.1/",
        "https://[::1]/\x00",
        "s3://b/k",
        "\ud800",
    ]
)
parts = st.dictionaries(
    st.sampled_from(["object", "offset", "num_bytes", "key"]),
    hosts | st.integers(-(2**70), 2**70) | st.none(),
    max_size=4,
)
records = st.dictionaries(
    st.sampled_from(["id", "image", "prompt", "seed", "index", "\x00"]),
    json_values | hosts | parts | st.lists(hosts | parts, max_size=20) | st.integers(-(2**70), 2**70),
    max_size=5,
)
lines = (
    st.binary(max_size=300)
    | any_text
    | records
    | records.map(json.dumps)
    | records.map(lambda record: json.dumps(record).encode()[:-2])
    | st.integers(1, 200_000).map(lambda depth: b"[" * depth)
    | st.integers(1, 5000).map(lambda digits: b'{"seed": ' + b"9" * digits + b"}")
    | json_values
)


@fuzzed
@given(st.lists(lines, max_size=4), st.sampled_from(JobKind), st.booleans(), st.sampled_from(["", "uploads/t/u/"]))
def test_any_line_becomes_an_item_or_its_failure(raw: list[Any], kind: JobKind, allow_urls: bool, prefix: str) -> None:
    images = ImageNames(prefix, allow_urls=allow_urls)
    items = list(ItemReader(options_for(kind, {}), images).read(raw))
    assert [item.index for item in items] == list(range(len(raw)))
    for item in items:
        line = item.as_line()
        assert len(line.encode()) <= MAX_LINE_BYTES  # no half surrogates either
        assert "\n" not in line
        assert Item.from_line(line) == item
        assert "\x00" not in item.id
        if item.failure is not None:
            assert item.failure.code in FAILURE_CODES
        for image in item.images:
            is_allowed_url = allow_urls and is_url(image.key)
            assert is_allowed_url or (prefix and image.key.startswith(prefix) and ".." not in image.key.split("/"))
            assert image.offset >= 0
            assert image.num_bytes is None or image.num_bytes > 0


@fuzzed
@given(any_text)
def test_any_name_is_safe_or_not(name: str) -> None:
    if is_safe_name(name):
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        name.encode()


good_key = new_key().text


@fuzzed
@given(any_text | st.builds(lambda at, with_: good_key[:at] + with_ + good_key[at + 1 :], st.integers(0, 80), any_text))
def test_any_text_is_a_key_or_not(text: str) -> None:
    parsed = parse_key(text)
    assert parsed is None or text == good_key


words = """http:// https: // / @ : [ ] % ? # \\ . .. 127.0.0.1 0x7f ::1 ::ffff: localhost example.org 80 443 6379
    \uff41 \u3002 xn-- - _ 99999999999999"""
url_parts = st.sampled_from([*words.split(), "\r\n", "\x00", "a" * 70])
urls = any_text | any_text.map(lambda text: f"http://{text}") | st.lists(url_parts, max_size=9).map("".join)


@fuzzed
@given(urls, urls)
def test_any_text_is_a_url_of_ours_or_refused(text: str, location: str) -> None:
    try:
        url = check_url(text, ports=(80, 443))
        assert url.scheme in ("http", "https")
        assert url.port in (80, 443)
        assert url.host == url.host.lower().strip()
        assert url.target.startswith(("/", "?"))
        assert url.target.isascii()
        assert not set(url.target) & set(" \r\n\x00")
        assert check_url(url.origin + url.target, ports=(80, 443)) == url
        if url.address is not None:
            is_public(url.address)
        check_url(url.join(location), ports=(80, 443))
    except UrlRefused as error:
        str(error).encode()


@fuzzed
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1))
def test_no_address_holds_a_closed_one(high: int, low: int) -> None:
    v4 = ipaddress.IPv4Address(low)
    if is_public(v4):
        assert v4.is_global or v4 in ipaddress.ip_network("192.0.0.0/8")
    v6 = ipaddress.IPv6Address(high)
    if is_public(v6):
        assert v6.ipv4_mapped is None
        assert v6.sixtofour is None
        assert v6.teredo is None
        assert not any((v6.is_private, v6.is_loopback, v6.is_link_local, v6.is_multicast, v6.is_reserved))


whole = [encode(picture(size=(24, 16)), kind) for kind in FORMATS]
changes = st.lists(st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=4)), max_size=6)


@fuzzed
@given(st.sampled_from(whole), changes, st.integers(0, 2000))
def test_any_header_of_an_image_is_decoded_or_refused(data: bytes, several: list[tuple[int, bytes]], end: int) -> None:
    changed = bytearray(data)
    for place, value in several:
        changed[place : place + len(value)] = value
    decode_or_refuse(bytes(changed[: max(end, 1)]))


@fuzzed
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF"]), st.binary()
)
def test_any_bytes_are_decoded_or_refused(magic: bytes, rest: bytes) -> None:
    decode_or_refuse(magic + rest)
    decode_or_refuse(rest)


def decode_or_refuse(data: bytes) -> None:
    try:
        image = decode_image(data, place="items[0].image", max_pixels=10_000)
    except BadInput as error:
        assert error.code in ("image_unreadable", "image_too_large")  # noqa: PT017
    else:
        assert image.mode == "RGB"
        assert image.width * image.height <= 10_000
