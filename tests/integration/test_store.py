"""The calls that we make to an S3, against a real one; any store that passes will do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import time_machine

from orchestrator.artifacts import S3Store
from orchestrator.artifacts.base import ObjectMissing, StoreUnavailable
from orchestrator.artifacts.s3 import CHUNK_BYTES, PART_BYTES
from orchestrator.settings import Settings

pytestmark = pytest.mark.services


def test_bytes_come_back(store: S3Store) -> None:
    for key, data in (("a/b", b"x"), ("a/empty", b""), ("a/ä b#?%+.png", b"\x00\xff" * 1000)):
        store.put(key, data)
        assert store.get(key) == data
    store.put("a/b", b"y")
    assert store.get("a/b") == b"y"


def test_limit_reads_one_byte_more_and_no_further(store: S3Store) -> None:
    store.put("big", b"z" * 5000)
    assert len(store.get("big", max_bytes=100)) == 101
    assert len(store.get("big", max_bytes=5000)) == 5000


def test_a_stream_is_put_and_read_in_pieces(store: S3Store) -> None:
    piece = bytes(range(256)) * 4096
    for count in (0, 1, 16, 40):  # nothing, one request, exactly a part, three parts
        store.put_stream("stream", (piece for _ in range(count)))
        read = list(store.chunks("stream"))
        assert b"".join(read) == piece * count
        assert all(len(chunk) <= CHUNK_BYTES for chunk in read)
    with pytest.raises(ObjectMissing):
        next(store.chunks("nothing/here"))


def test_nothing_is_put_where_a_stream_breaks(store: S3Store) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(PART_BYTES + 1)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        store.put_stream("broken", broken())
    with pytest.raises(ObjectMissing):
        store.get("broken")


def test_a_part_of_an_object(store: S3Store) -> None:
    store.put("parts", bytes(range(200)))
    assert store.get_range("parts", 10, 5) == bytes(range(10, 15))
    assert store.get_range("parts", 190, 50) == bytes(range(190, 200)), "it ends before"
    assert store.get_range("parts", 200, 50) == b""
    assert store.get_range("parts", 10**9, 50) == b""
    with pytest.raises(ObjectMissing):
        store.get_range("nothing/here", 0, 5)


def test_a_copy_is_an_object_of_its_own(store: S3Store) -> None:
    store.put("a/ä b#?%+.png", b"\x00\xff" * 1000, "image/png")
    store.copy("a/ä b#?%+.png", "b/copy.png")
    store.delete(["a/ä b#?%+.png"])
    assert store.get("b/copy.png") == b"\x00\xff" * 1000
    with pytest.raises(ObjectMissing):
        store.copy("nothing/here", "b/other.png")


def test_missing_object_is_told_apart_from_a_store_that_is_away(store: S3Store) -> None:
    with pytest.raises(ObjectMissing, match="nothing/here"):
        store.get("nothing/here")
    with pytest.raises(ObjectMissing):
        list(store.lines("nothing/here", max_line_bytes=10))
    away = S3Store(
        endpoint="http://127.0.0.1:9", public_endpoint="http://127.0.0.1:9", access_key="a", secret_key="b",
        bucket="janus", region="us-east-1",
    )  # fmt: skip
    with pytest.raises(StoreUnavailable), closing(away):
        away.get("x")


def test_wrong_keys_and_clocks_are_no_objects_fault(store: S3Store, settings: Settings) -> None:
    """A refusal counts against an object in the end; this one must not."""
    store.put("x", b"x")
    endpoint = settings.s3_endpoint
    stranger = S3Store(
        endpoint=endpoint, public_endpoint=endpoint, access_key=settings.s3_access_key.get_secret_value(),
        secret_key="wrong", bucket=settings.s3_bucket, region=settings.s3_region,
    )  # fmt: skip
    with closing(stranger):
        with pytest.raises(StoreUnavailable) as wrong_key:
            stranger.get("x")
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)), pytest.raises(StoreUnavailable) as late:
            store.get("x")
    assert type(wrong_key.value) is type(late.value) is StoreUnavailable


def test_lines_are_a_stream_and_long_ones_are_cut(store: S3Store) -> None:
    store.put("lines", b"one\r\n\n" + b"x" * 100 + b"\nlast")
    assert list(store.lines("lines", max_line_bytes=10)) == [b"one", b"", b"x" * 11, b"last"]


def test_listing_is_in_name_order_and_pages(store: S3Store) -> None:
    names = [f"p/{number:04d}" for number in range(1100)]
    for name in names:
        store.put(name, b"1")
    store.put("q/other", b"1")
    assert [stored.key for stored in store.list("p/")] == names
    assert list(store.list("nothing/")) == []


def test_file_goes_up_as_a_stream(store: S3Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 700_000)
    store.put_file("file", path)
    assert store.get("file") == path.read_bytes()


def test_presigned_urls_work_without_a_key_and_only_for_their_object(store: S3Store) -> None:
    put = store.presign_put("signed/ä b.txt", expires_seconds=60)
    assert httpx.put(put, content=b"hello").status_code == 200
    get = store.presign_get("signed/ä b.txt", expires_seconds=60)
    answer = httpx.get(get)
    assert answer.content == b"hello"
    assert "%C3%A4%20b.txt" in answer.headers["content-disposition"]
    assert httpx.get(get.split("?")[0]).status_code == 403
    assert httpx.get(get.replace("signed/", "other/")).status_code == 403


def test_presigned_url_names_the_public_host(store: S3Store, environment: dict[str, str]) -> None:
    public = S3Store(
        endpoint=environment["JANUS_S3_ENDPOINT"], public_endpoint="https://files.example.org", access_key="a",
        secret_key="b", bucket="janus", region="us-east-1",
    )  # fmt: skip
    assert public.presign_get("x", expires_seconds=60).startswith("https://files.example.org/janus/x?")


def test_many_are_deleted_and_the_store_says_when_each_was_written(store: S3Store) -> None:
    before = datetime.now(UTC)
    for number in range(1001):
        store.put(f"d/{number:04d}", b"x")
    listed = list(store.list("d/"))
    assert all(abs(stored.modified_at - before) < timedelta(minutes=5) for stored in listed)
    store.delete([stored.key for stored in listed[1:]] + ["d/never"])
    assert [stored.key for stored in store.list("d/")] == ["d/0000"]
    store.delete([])
