"""Tars of strangers: what the standard library writes is found, and whatever else is in one costs its own item."""

from __future__ import annotations

import io
import json
import random
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.domain import tars
from orchestrator.domain.samples import TarImage, read_samples
from orchestrator.domain.tars import BLOCK, MAX_EXTENSION_BYTES, ReadAt, TarDamaged, read_members

fuzzed = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def make_tar(files: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT, **changes: Any) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in changes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def reader_of(data: bytes, asked: list[int] | None = None) -> ReadAt:
    def read_at(offset: int, num_bytes: int) -> bytes:
        if asked is not None:
            asked.append(num_bytes)
        assert offset >= 0
        assert num_bytes >= 0
        return data[offset : offset + num_bytes]

    return read_at


def images(data: bytes, *, with_fields: bool = False) -> list[TarImage]:
    return list(read_samples(reader_of(data), len(data), with_fields=with_fields))


@pytest.mark.parametrize("kind", FORMATS)
def test_files_are_where_the_standard_library_finds_them(kind: int) -> None:
    rng = random.Random(1)
    names = ["a.png", "./b/ä ö.png", "c/" * 40 + "long.png", "no-dot", "d/" + "e" * 90 + ".png"]
    if kind != tarfile.USTAR_FORMAT:
        names += ["f/" * 150 + "longer.png"]
    data = make_tar({name: rng.randbytes(rng.randrange(2000)) for name in names}, kind, mtime=1.5 if kind == 2 else 1)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar]
    assert [(m.name, m.offset, m.num_bytes) for m in read_members(reader_of(data), len(data))] == expected
    assert [name for name, _, _ in expected] == names


def test_only_regular_files_are_read() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.DIRTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
        ):
            info = tarfile.TarInfo("evil.png")
            info.type, info.linkname, info.size = kind, "../../etc/passwd", 0
            tar.addfile(info)
        info = tarfile.TarInfo("../../good.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    [good] = images(data.getvalue())
    assert good.name == "../../good.png", "a name is an id, and never a path here"
    assert data.getvalue()[good.offset :][:3] == b"abc"


def test_what_stands_beside_an_image_gives_fields() -> None:
    files = {
        "s/0.json": json.dumps({"tags": ["a"], "n": 1}).encode(),
        "s/0.left.png": b"x",
        "s/0.right.PNG": b"x",
        "s/0.txt": b" words \n",
        "s/1.png": b"x",
        "s/1.json": b"{broken",
        "s.x/1.png": b"x",
        "s.x/1.json": b"[1]",
        "s.x/2.png": b"",
        "s.x/2.json": b"x" * 70_000,
        "many.png": b"x",
        **{f"many.{number}.json": json.dumps({f"n{number}": "x" * 30_000}).encode() for number in range(900)},
    }
    found = images(make_tar(files), with_fields=True)
    both = {"tags": ["a"], "n": 1, "txt": "words"}
    many = found.pop()
    assert sorted(many.fields) == ["n0", "n1"], "and no more of 27 MB"
    assert [(image.name, image.fields) for image in found] == [
        ("s/0.left.png", both),
        ("s/0.right.PNG", both),
        ("s/1.png", {}),
        ("s.x/1.png", {}),
        ("s.x/2.png", {}),
    ]
    assert [image.trouble for image in found] == ["", "", "", "", "it is empty"]


def test_a_cut_tar_costs_what_was_cut() -> None:
    whole = make_tar({f"{number}.png": bytes([number]) * 700 for number in range(5)})
    for end in range(len(whole)):
        found = images(whole[:end])
        good = [image for image in found if not image.trouble]
        assert len(good) == min(5, (end + 324) // 1536), end  # a header and two blocks, of the last one 700 - 512 bytes
        assert len(found) - len(good) <= 1
        assert all("the tar ends within" in image.trouble for image in found[len(good) :])


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    """A header with something else in it, and a checksum that is right."""
    header = bytearray(data[:BLOCK])
    header[offset : offset + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    return bytes(header) + data[BLOCK:]


ONE = make_tar({"a.png": b"abc"})
HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("compressed", lambda: b"\x1f\x8b\x08" + bytes(1000), "compressed"),
    ("no tar", lambda: b"x" * 5000, "no tar header at byte 1536"),
    ("negative size", lambda: patched(ONE, 124, b"\xff" * 12), "size that cannot be"),
    ("huge size", lambda: patched(ONE, 124, b"\x80" + b"\xff" * 11), "size that cannot be"),
    ("size of words", lambda: patched(ONE, 124, b"0x10_000\x00   "), "size that cannot be"),
    ("huge extension", lambda: patched(patched(ONE, 156, b"x"), 124, b"77777777777"), "claims an extension"),
    ("huge name", lambda: patched(patched(ONE, 156, b"L"), 124, b"77777777777"), "claims an extension"),
    ("records without end", lambda: patched(ONE, 156, b"x"), "records"),
    ("negative pax size", lambda: pax(b"14 size=-1536\n"), "size that cannot be"),
    ("pax size of 99 digits", lambda: pax(b"107 size=" + b"9" * 97 + b"\n"), "size that cannot be"),
    ("a record of no length", lambda: pax(b"0 size=1\n"), "records"),
    ("a record longer than all", lambda: pax(b"99999999 size=1\n"), "records"),
]


def pax(records: bytes) -> bytes:
    header = patched(patched(ONE, 156, b"x"), 124, b"%011o" % len(records))[:BLOCK]
    return header + records.ljust(-(-len(records) // BLOCK) * BLOCK, b"\x00") + ONE


@pytest.mark.parametrize(("name", "make", "says"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_a_hostile_header_is_told_with_its_place(name: str, make: Callable[[], bytes], says: str) -> None:
    good = make_tar({"good.png": b"x" * 600})[: BLOCK + 1024]
    data, asked = good + make(), list[int]()
    first, rest = read_samples(reader_of(data, asked), len(data), with_fields=True)
    assert (first.name, first.trouble, rest.name, rest.offset) == ("good.png", "", "", len(good))
    assert says in rest.trouble
    assert max(asked) <= MAX_EXTENSION_BYTES


def test_a_sparse_file_is_told_and_the_next_is_read() -> None:
    sparse = patched(patched(ONE, 156, b"S"), 482, b"\x01")[:BLOCK]
    extended = bytes(504) + b"\x01" + bytes(7), bytes(BLOCK)
    data = sparse + b"".join(extended) + ONE[BLOCK : 2 * BLOCK] + make_tar({"b.png": b"x"})
    first, second = images(data)
    assert "sparse" in first.trouble
    assert (second.name, second.trouble) == ("b.png", "")


def test_a_tar_of_headers_alone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = make_tar({"a.txt": b""})[:BLOCK]

    def endless(offset: int, num_bytes: int) -> bytes:
        return empty

    monkeypatch.setattr(tars, "MAX_HEADERS", 5000)
    with pytest.raises(TarDamaged, match="more than 5000 headers"):
        list(read_members(endless, 2**60))


def test_a_million_headers_are_read_in_bounded_time() -> None:
    block = make_tar({"a.png": b"x"})[: 2 * BLOCK]
    began = time.perf_counter()
    count = sum(1 for _ in read_members(lambda offset, _: block[:BLOCK] if offset < 100_000 * 1024 else b"", 2**60))
    assert count == 100_000
    assert time.perf_counter() - began < 20


whole = [make_tar({"a.png": b"abc", "a.json": b'{"t": 1}', "b" * 120 + ".png": b"x" * 600}, kind) for kind in (1, 2)]
changes = st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=12)), max_size=6)


@fuzzed
@given(st.sampled_from(whole), changes, st.integers(0, 11_000), st.booleans())
def test_any_change_of_a_tar_gives_images_or_says_what_is_wrong(
    data: bytes, several: list[tuple[int, bytes]], end: int, mend: bool
) -> None:
    changed = bytearray(data)
    for place, value in several:
        changed[place : place + len(value)] = value
    if mend:  # else hardly a header is looked at
        for start in range(0, len(changed) - BLOCK, BLOCK):
            if changed[start] and changed[start + 257 : start + 262] == b"ustar":
                changed[start : start + BLOCK] = patched(bytes(changed[start : start + BLOCK]), 0, b"")
    check(bytes(changed[:end]))


@fuzzed
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 100, 124, 136, 148, 156, 257, 345, 482]), st.binary(max_size=20)), max_size=6
    ),
    st.binary(max_size=2000),
)
def test_any_header_with_a_right_checksum_is_read_or_refused(fields: list[tuple[int, bytes]], rest: bytes) -> None:
    header = ONE[:BLOCK]
    for place, value in fields:
        header = patched(header, place, value)[:BLOCK]
    check(header + rest)


@fuzzed
@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    check(data)


@fuzzed
@given(
    st.lists(
        st.sampled_from(
            [b"9 size=1\n", b"17 path=../../a\n", b"12 size=999\n", b"8 path=\n", b"5 a=b", b"\x00", b"x", b"1 \n"]
        ),
        max_size=8,
    )
)
def test_any_records_are_read_or_refused(records: list[bytes]) -> None:
    check(pax(b"".join(records)))


def check(data: bytes) -> None:
    asked: list[int] = []
    found = list(read_samples(reader_of(data, asked), len(data), with_fields=True))
    assert max(asked, default=0) <= MAX_EXTENSION_BYTES
    assert len(asked) <= 3 * (len(data) // BLOCK + 2)
    for image in found:
        assert image.trouble or 0 < image.num_bytes <= len(data) - image.offset
        json.dumps([image.name, image.fields])
