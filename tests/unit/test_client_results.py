"""What comes back: links that expire, order, files that are streamed, a server that is away."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.client import (
    Client,
    ConnectionFailed,
    Job,
    JobNotEnded,
    ServerError,
    TransferFailed,
    _parts,
    _retries,
)
from orchestrator.client._outputs.names import SidecarNames
from orchestrator.client._outputs.tables import write_csv
from orchestrator.client._retries import Patience
from orchestrator.client._steps import Driver, work
from orchestrator.client._transfers import Transfers
from orchestrator.domain.jobs import JobKind
from tests.unit.test_client import VIEW


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(_retries, "FIRST_POLL_SECONDS", 0.0)


def encode(values: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FakeServer:
    """An API and a store with one captioning job; links in `expired` do not work any more.

    Args:
        shards: of each shard, the lines of its parts in the order in which they were written.
    """

    def __init__(self, shards: list[list[list[dict[str, Any]]]], *, ended: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.streams: dict[str, Callable[[], httpx.SyncByteStream]] = {}
        self.shards = shards
        self.links = 0
        self.expired: set[str] = set()
        self.limits: list[int] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.view = VIEW | {"kind": "caption", "state": "completed" if ended else "running"}
        if ended:
            self._end()

    def client(self) -> Client:
        client = Client("http://janus.test", "k", max_retries=1, transport=httpx.MockTransport(self._api))
        client._transfers.close()
        client._transfers = Transfers(max_retries=1, transport=httpx.MockTransport(self._store))
        return client

    def job(self, client: Client) -> Job:
        return client.attach("job_1")

    def _end(self) -> None:
        lines = sorted(
            (line for parts in self.shards for part in parts for line in part), key=lambda r: int(r["index"])
        )
        failures = [line for line in lines if "failure" in line]
        self.objects["jobs/job_1/results.jsonl"] = encode(lines)
        self.objects["jobs/job_1/failures.jsonl"] = encode(failures)
        items = {"total": len(lines), "results": len(lines) - len(failures), "failures": len(failures), "cancelled": 0}
        self.view["items"] = items
        self.record({"items": items})

    def record(self, changes: dict[str, Any]) -> None:
        """Write the manifest, and its digest into the job."""
        names = ("results.jsonl", "failures.jsonl")
        objects = {name: {"sha256": sha256(self.objects[f"jobs/job_1/{name}"])} for name in names}
        manifest = json.dumps({"objects": objects, "parts": []} | changes).encode()
        self.objects["jobs/job_1/manifest.json"] = manifest
        self.view["manifest_sha256"] = sha256(manifest)

    def _link(self, key: str) -> str:
        self.links += 1
        return f"http://store.test/{key}?link={self.links}"

    def _api(self, request: httpx.Request) -> httpx.Response:
        if (refusal := self.before(request)) is not None:
            return refusal
        path = request.url.path
        if path.endswith("/downloads"):
            names = json.loads(request.content)["names"]
            urls = [self._link(f"jobs/job_1/{name}") for name in names]
            return httpx.Response(200, json={"urls": urls, "expires_seconds": 1})
        if path.endswith("/results"):
            return httpx.Response(200, json=self._page(request))
        return httpx.Response(200, json=self.view)

    def _page(self, request: httpx.Request) -> dict[str, Any]:
        first, limit = int(request.url.params["from_index"]), int(request.url.params["limit"])
        self.limits.append(limit)
        parts: list[dict[str, Any]] = []
        start, seen, next_index = 0, 0, first
        for shard in self.shards:
            end = start + sum(len(part) for part in shard)
            if start >= first and seen < limit:
                seen += 1
                for number, part in enumerate(shard):
                    key = f"parts/{start}-{number}"
                    self.objects[key] = encode(part)
                    parts.append(
                        {"url": self._link(key), "sha256": sha256(self.objects[key]), "num_bytes": 1,
                         "first_index": start, "end_index": end}
                    )  # fmt: skip
                next_index = end
            start = end
        return {"parts": parts, "next_index": next_index, "complete": seen < limit}

    def _store(self, request: httpx.Request) -> httpx.Response:
        key = urlsplit(str(request.url)).path.lstrip("/")
        if str(request.url) in self.expired:
            return httpx.Response(403, text="Request has expired")
        if key in self.streams:
            return httpx.Response(200, stream=self.streams[key]())
        return httpx.Response(200, content=self.objects[key]) if key in self.objects else httpx.Response(404)


def caption(index: int, item_id: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": item_id or f"{index}.jpg", "caption": f"c{index}"}


def test_expired_links_are_asked_for_anew_from_that_shard_on() -> None:
    server = FakeServer([[[caption(i)]] for i in range(25)])
    seen = []
    with server.client() as client:
        for result in server.job(client).results():
            seen.append(result["index"])
            if result["index"] in (3, 14):  # whoever reads takes longer than the links of this page live
                server.expired |= _all_links(server)
    assert seen == list(range(25))
    assert set(server.limits) == {_parts.PAGE_SHARDS}
    assert _parts.PAGE_SHARDS <= 10


def _all_links(server: FakeServer) -> set[str]:
    return {f"http://store.test/{key}?link={n}" for n in range(server.links + 1) for key in server.objects}


def test_a_part_that_stays_unreadable_is_an_error_after_one_more_try() -> None:
    server = FakeServer([[[caption(0)]], [[caption(1)]]])
    with server.client() as client:
        results = server.job(client).results()
        assert next(results)["index"] == 0
        server.expired |= {f"http://store.test/parts/1-0?link={n}" for n in range(99)}
        with pytest.raises(TransferFailed, match="403") as caught:
            next(results)
    assert caught.value.status == 403
    assert len(server.limits) == 2


def test_lines_of_a_shard_are_in_item_order_in_every_form(tmp_path: Path) -> None:
    server = FakeServer([[[caption(3), caption(1)], [caption(0), caption(2)]], [[caption(5)], [caption(4)]]])
    with server.client() as client:
        job = server.job(client)
        assert [r["index"] for r in job.results()] == list(range(6))
        assert [json.loads(line)["index"] for line in job.finished_lines()] == list(range(6))
        job.download(tmp_path / "a.jsonl")
        job.download(tmp_path / "a.csv")
    assert [json.loads(line)["index"] for line in (tmp_path / "a.jsonl").read_bytes().splitlines()] == list(range(6))
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == [str(i) for i in range(6)]


def test_part_that_has_changed_is_not_handed_on() -> None:
    server = FakeServer([[[caption(0)]]])
    with server.client() as client:
        job = server.job(client)
        page = job.parts()
        server.objects["parts/0-0"] = encode([caption(0, "other")])
        with pytest.raises(TransferFailed, match="changed"):
            _parts.shard_lines(job, page.parts)


def test_ended_job_is_streamed_and_compared_with_its_manifest(tmp_path: Path) -> None:
    server = FakeServer([[[caption(0), caption(1)]]], ended=True)
    out = tmp_path / "deep" / "a.jsonl"
    with server.client() as client:
        job = server.job(client)
        job.download(out)
        assert out.read_bytes() == server.objects["jobs/job_1/results.jsonl"]
        server.objects["jobs/job_1/results.jsonl"] += b"{}\n"
        for name in ("a.jsonl", "a.csv", "folder"):
            with pytest.raises(TransferFailed, match=r"results\.jsonl has changed"):
                job.download(tmp_path / "other" / name)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [out], "nothing half written is left"


class Pieces(httpx.SyncByteStream):
    def __init__(self, num_lines: int) -> None:
        self._num_lines = num_lines

    def __iter__(self) -> Iterator[bytes]:
        for index in range(self._num_lines):
            yield encode([caption(index) | {"caption": "x" * 20_000}])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "folder", "webdataset", "dataset", "verify"])
def test_results_are_never_held_in_memory(name: str, tmp_path: Path) -> None:
    num_lines = 1000  # 20 MB
    digest = hashlib.sha256()
    for line in Pieces(num_lines):
        digest.update(line)
    server = FakeServer([], ended=True)
    server.view["items"] = items = {"total": num_lines, "results": num_lines, "failures": 0, "cancelled": 0}
    objects = {"results.jsonl": {"sha256": digest.hexdigest()}, "failures.jsonl": {"sha256": sha256(b"")}}
    server.record({"items": items, "objects": objects})
    server.streams["jobs/job_1/results.jsonl"] = lambda: Pieces(num_lines)
    with server.client() as client:
        job = server.job(client)
        importlib.import_module("datasets")
        importlib.import_module("pyarrow.parquet")
        tracemalloc.start()
        if name == "verify":
            assert job.verify().ok
        else:
            job.download(tmp_path / name, form=name if name in ("webdataset", "dataset") else None)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 8e6


class BreaksOff(httpx.SyncByteStream):
    def __iter__(self) -> Any:
        yield b"half"
        raise httpx.ReadError("connection reset")


def test_stream_that_breaks_off_begins_anew(tmp_path: Path) -> None:
    answers = iter([httpx.Response(200, stream=BreaksOff()), httpx.Response(503), httpx.Response(200, content=b"all")])
    transfers = Transfers(max_retries=3, transport=httpx.MockTransport(lambda _: next(answers)))
    with (tmp_path / "x").open("w+b") as file:
        assert transfers.get_into("http://store.test/x", file) == sha256(b"all")
    assert (tmp_path / "x").read_bytes() == b"all"
    transfers.close()


def test_verify_counts_and_compares_line_by_line() -> None:
    failure = {"index": 2, "id": "2.jpg", "failure": {"code": "image_missing", "message": "m", "attempts": 1}}
    server = FakeServer([[[caption(0), caption(1), failure]]], ended=True)
    with server.client() as client:
        found = server.job(client).verify()
        assert (found.ok, found.items, found.objects) == (True, 3, 3)
        cases = {
            "twice": [caption(0), caption(0), failure],
            "order": [caption(1), caption(0), failure],
            "does not have": [caption(0), caption(7), failure],
            "as many": [caption(0), caption(1), caption(2)],
        }
        for says, lines in cases.items():
            server.objects["jobs/job_1/results.jsonl"] = encode(lines)
            server.record({"items": server.view["items"]})
            problems = server.job(client).verify().problems
            assert len([p for p in problems if says in p]) == 1, (says, problems)


def test_sidecars_never_share_a_name(tmp_path: Path) -> None:
    ids = ["a.jpg", "a.png", "b/c.gif", "../up/d.jpg", "bad\\e.jpg", "a.jpg/../.."]
    server = FakeServer([[[caption(i, item_id) for i, item_id in enumerate(ids)]]], ended=True)
    with server.client() as client:
        server.job(client).download(tmp_path)
    written = {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.rglob("*.txt")}
    assert written == {
        "a.txt": "c0\n", "a.png.txt": "c1\n", "b/c.txt": "c2\n", "up/d.txt": "c3\n", "000000004.txt": "c4\n",
        "000000005.txt": "c5\n",
    }  # fmt: skip


def test_folder_that_absolute_ids_have_in_common_is_left_out() -> None:
    ids = ["/data/x/1.jpg", "/data/y/1.jpg", "z/1.jpg"]
    names = SidecarNames(ids)
    assert [names.take(i, item_id) for i, item_id in enumerate(ids)] == ["x/1.txt", "y/1.txt", "z/1.txt"]
    assert SidecarNames(["/data/1.jpg"]).take(0, "/data/1.jpg") == "1.txt"
    assert SidecarNames([]).take(7, "ü" * 200) == "000000007.txt"
    names = SidecarNames([])
    assert [names.take(0, "000000001.jpg"), names.take(1, "..")] == ["000000001.txt", "000000001.caption.txt"]


def away(times: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """A server that is not there, then answers errors, and then is back."""
    left = [times]

    def before(request: httpx.Request) -> httpx.Response | None:
        left[0] -= 1
        if left[0] < 0:
            return None
        if left[0] % 2:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(502)

    return before


def test_wait_and_results_bear_a_server_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer([[[caption(0)]]])
    with server.client() as client:
        job = server.job(client)
        server.before = away(9)
        assert [r["index"] for r in job.results()] == [0]
        server.before = away(9)
        server.view["state"] = "completed"
        assert job.wait(progress=True).state.ended
    told = capsys.readouterr().err
    assert told.count("does not answer") == 1, told


def test_silence_ends_with_the_timeout_or_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer([])
    with server.client() as client:
        job = server.job(client)
        server.before = away(10**6)
        with pytest.raises(JobNotEnded, match="does not answer"):
            job.wait(0.05)
        monkeypatch.setattr("orchestrator.client._job.MAX_SILENCE_SECONDS", 0.01)
        monkeypatch.setattr("orchestrator.client._parts.MAX_SILENCE_SECONDS", 0.01)
        with pytest.raises((ConnectionFailed, ServerError)):
            job.wait()
        with pytest.raises((ConnectionFailed, ServerError)):
            list(job.results())


def test_patience_ends_after_so_much_silence_on_end_and_never_bears_a_refusal() -> None:
    now = [0.0]
    patience = Patience(10, clock=lambda: now[0])

    def ask(call: Callable[[], Any]) -> Any:
        return Driver().run(patience.ask(work(call)))

    def silent() -> None:
        raise ConnectionFailed("nobody there")

    assert ask(silent) is None
    now[0] = 9
    assert ask(silent) is None
    assert ask(lambda: 1) == 1
    now[0] = 18
    assert ask(silent) is None
    now[0] = 28
    with pytest.raises(ConnectionFailed):
        ask(silent)

    def refused() -> None:
        raise ServerError(404, {})

    with pytest.raises(ServerError):
        ask(refused)


def table_of(lines: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    write_csv(file, JobKind.caption, lines)
    return file.getvalue()


@pytest.mark.parametrize(
    "caption",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\ttext", "\rtext", "\ntext", "  =1+1", "\uff1d1", "=cmd|' /C calc'!A0"],
)
def test_a_cell_of_a_table_is_never_a_formula(caption: str) -> None:
    line = {"index": 0, "id": caption, "caption": caption}
    rows = table_of([line])
    [row] = csv.DictReader(io.StringIO(rows.decode(), newline=""))
    assert (row["id"], row["caption"]) == (f"'{caption}", f"'{caption}")


def test_an_ordinary_cell_stays_as_it_is() -> None:
    for caption in ("a cat - asleep", "", "1 = 1", "tab\tinside"):
        rows = table_of([{"index": 0, "id": "a", "caption": caption}])
        [row] = csv.DictReader(io.StringIO(rows.decode(), newline=""))
        assert row["caption"] == caption
