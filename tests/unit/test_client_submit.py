"""What the client sends: ids of items, options, and the same job for the same key."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.client import BadSource, Client, ClientError, InvalidOption, _retries
from orchestrator.client._sources import read_image_sources
from orchestrator.client._transfers import Transfers
from orchestrator.client._uploads import Uploads
from tests.unit.test_client import NOW, VIEW, client_of

MODEL = {"name": "m", "family": "janus", "revision": "r", "served": True, "registered_at": NOW}


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY_SECONDS", 0.0)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """x/1.jpg and y/1.jpg below the working directory."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(folder.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FakeServer:
    """Uploads and jobs by idempotency key, and a store."""

    def __init__(self, missing_status: int = 404) -> None:
        self.uploads: dict[str, str] = {}
        self.jobs: dict[str, Any] = {}
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.missing_status = missing_status

    def client(self) -> Client:
        client = Client("http://janus.test", "k", transport=httpx.MockTransport(self._api))
        client._transfers.close()
        client._transfers = Transfers(max_retries=0, transport=httpx.MockTransport(self._store))
        return client

    def _api(self, request: httpx.Request) -> httpx.Response:
        path, key = request.url.path, request.headers.get("idempotency-key", "")
        if path == "/v1/models":
            return httpx.Response(200, json={"models": [MODEL]})
        if path == "/v1/uploads":
            upload = self.uploads.setdefault(key, f"upl_{len(self.uploads)}")
            return httpx.Response(201, json={"id": upload, "created_at": NOW})
        if path.startswith("/v1/uploads/"):
            names = json.loads(request.content)["names"]
            urls = [f"http://store.test/{path.split('/')[3]}/{name}" for name in names]
            return httpx.Response(200, json={"urls": urls, "expires_seconds": 1})
        body = json.loads(request.content)
        if self.jobs.setdefault(key, body) != body:
            return httpx.Response(409, json={"code": "conflict", "detail": "the key was used for another body"})
        return httpx.Response(201, json=VIEW | {"id": f"job_{list(self.jobs).index(key)}"})

    def _store(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.puts.append(request.url.path)
            self.objects[request.url.path] = request.read()
            return httpx.Response(200)
        data = self.objects.get(request.url.path)
        return httpx.Response(self.missing_status) if data is None else httpx.Response(200, content=data)


def ids(*sources: str | Path) -> list[Any]:
    return [item.line["id"] for item in read_image_sources(sources) if isinstance(item.line, dict)]


def test_files_of_the_same_name_in_several_sources_stay_apart(photos: Path) -> None:
    assert ids("x/", "y/") == ["x/1.jpg", "y/1.jpg"]
    assert ids("x/1.jpg", "y/1.jpg") == ["x/1.jpg", "y/1.jpg"]
    assert ids("./x", "y/*.jpg") == ["x/1.jpg", "y/1.jpg"]
    for folder in ("x", "y"):
        (photos / folder / "items.jsonl").write_text('{"image": "1.jpg"}\n')
    assert ids("x/items.jsonl", "y/items.jsonl") == ["x/1.jpg", "y/1.jpg"]


def test_of_one_source_ids_are_as_short_as_they_can_be(photos: Path) -> None:
    assert ids("x/") == ["1.jpg"]
    assert ids("x/1.jpg") == ["1.jpg"]
    assert ids("*/1.jpg") == ["x/1.jpg", "y/1.jpg"]
    assert ids(f"{photos}/*/1.jpg") == ["x/1.jpg", "y/1.jpg"]
    assert ids(f"{photos}/x/?.jpg") == ["1.jpg"]
    assert ids(f"{photos}/**/*.jpg") == ["x/1.jpg", "y/1.jpg"]


@pytest.mark.parametrize("missing_status", [404, 403])
def test_same_key_is_the_same_job_and_sends_nothing_again(photos: Path, missing_status: int) -> None:
    server = FakeServer(missing_status)
    for _ in range(2):  # two runs of a script
        with server.client() as client:
            assert client.caption("x/", idempotency_key="nightly").id == "job_0"
    assert list(server.uploads) == ["nightly/upload"]
    assert server.puts == ["/upl_0/bundles/000000000", "/upl_0/manifest.jsonl"]


def test_run_that_was_interrupted_before_its_manifest_sends_all_again(photos: Path) -> None:
    server = FakeServer()
    with server.client() as client:
        client.caption("x/", idempotency_key="nightly")
        del server.objects["/upl_0/manifest.jsonl"]
        client.caption("x/", idempotency_key="nightly")
    assert len(server.puts) == 4


def test_same_key_with_other_input_is_told_before_anything_is_overwritten(photos: Path) -> None:
    server = FakeServer()
    with server.client() as client:
        client.generate(["one"], idempotency_key="k")
        sent = dict(server.objects)
        with pytest.raises(BadSource, match="'k' was used for other"):
            client.generate(["two"], idempotency_key="k")
    assert server.objects == sent


def test_without_a_key_each_call_is_a_job_of_its_own() -> None:
    server = FakeServer()
    with server.client() as client:
        assert {client.generate(["one"]).id for _ in range(2)} == {"job_0", "job_1"}
    assert len(server.uploads) == 2


def test_nothing_to_submit_makes_no_upload(photos: Path) -> None:
    server = FakeServer()
    (photos / "empty").mkdir()
    with server.client() as client, pytest.raises(BadSource, match="nothing to submit"):
        client.caption("empty")
    assert server.uploads == {}


def test_small_files_share_objects_and_the_manifest_says_where_they_lie(photos: Path) -> None:
    megabyte = 2**20
    sizes = [megabyte, megabyte + 1, 10, 0, *[megabyte] * 4]  # each of bytes of its own
    for number, size in enumerate(sizes):
        (photos / "x" / f"{number}.jpg").write_bytes(bytes([number + 1]) * size)
    (photos / "x" / "items.jsonl").write_text(
        "".join(json.dumps({"image": f"{number}.jpg"}) + "\n" for number in [*range(len(sizes)), "missing"])
    )
    server = FakeServer()
    with server.client() as client:
        client.caption("x/items.jsonl")
    names = ["bundles/000000000", "bundles/000000001", "images/000000001.jpg", "images/000000003.jpg", "manifest.jsonl"]
    assert sorted(server.objects) == [f"/upl_0/{name}" for name in names]
    places = [json.loads(line)["image"] for line in server.objects["/upl_0/manifest.jsonl"].splitlines()]
    assert places.pop() == "images/000000008.jpg", "which was not sent"
    for number, place in enumerate(places):
        data = server.objects[f"/upl_0/{place['object']}"]
        if "offset" in place:
            data = data[place["offset"] :][: place["num_bytes"]]
        assert place["sha256"] == hashlib.sha256(data).hexdigest()
        assert data == (photos / "x" / f"{number}.jpg").read_bytes()


def test_urls_of_a_manifest_stay_as_they_are(photos: Path) -> None:
    url = "https://example.org/a.jpg?b=c"
    lines = [{"image": url}, {"id": "both", "image": ["x/1.jpg", url]}]
    (photos / "urls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    server = FakeServer()
    with server.client() as client:
        client.caption(photos / "urls.jsonl")
    only, both = (json.loads(line) for line in server.objects["/upl_0/manifest.jsonl"].splitlines())
    assert only == lines[0]
    assert (both["image"][0]["object"], both["image"][1]) == ("bundles/000000000", url)


def test_file_that_changes_while_it_is_sent_costs_no_other(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("2", "3", "4"):
        (photos / "x" / f"{name}.jpg").write_bytes(name.encode() * 3)
    server = FakeServer()
    with server.client() as client:
        make_urls = Uploads.urls

        def change_first(self: Uploads, upload: str, names: list[str]) -> Any:
            (photos / "x" / "2.jpg").write_bytes(b"longer than before")
            (photos / "x" / "3.jpg").unlink(missing_ok=True)
            return make_urls(self, upload, names)

        monkeypatch.setattr(Uploads, "urls", change_first)
        client.caption("x/")
    assert server.objects["/upl_0/bundles/000000000"] == b"x" + bytes(6) + b"444"


@pytest.mark.skipif(os.name != "posix", reason="file names of bytes")
def test_file_whose_name_is_not_utf8_is_sent(photos: Path) -> None:
    with open(os.fsencode(photos / "x") + b"/\xff.jpg", "wb") as file:
        file.write(b"bytes")
    server = FakeServer()
    with server.client() as client:
        client.caption("x/")
    assert server.objects["/upl_0/bundles/000000000"] == b"xbytes"


def test_each_retry_of_failures_has_its_own_key_for_all_its_tries() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/retry"):
            seen.append(request.headers["idempotency-key"])
            if len(seen) == 1:
                raise httpx.ReadTimeout("late", request=request)
        return httpx.Response(200, json=VIEW)

    with client_of(answer) as client:
        job = client.attach("job_1")
        job.retry_failures()
        job.retry_failures()
        job.retry_failures(idempotency_key="mine")
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert seen[-1] == "mine"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "urls"])
def test_what_may_be_done_twice_is_sent_again(verb: str) -> None:
    calls = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        if request.method == "GET":
            return httpx.Response(200, json=VIEW)
        calls += 1
        if calls == 1:
            raise httpx.ReadTimeout("late", request=request)
        if calls == 2:
            return httpx.Response(502)
        return httpx.Response(200, json=VIEW | {"urls": ["u"], "expires_seconds": 1})

    with client_of(answer) as client:
        job = client.attach("job_1")
        job.urls(["a"]) if verb == "urls" else getattr(job, verb)()
    assert calls == 3


@pytest.mark.parametrize(("status", "calls_made"), [(429, 4), (500, 1), (503, 1), (504, 1)])
def test_what_may_not_be_done_twice_is_sent_again_only_when_it_was_not_looked_at(status: int, calls_made: int) -> None:
    calls = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(status)

    with client_of(answer) as client, pytest.raises(ClientError):
        client.create_team("a")
    assert calls == calls_made


def test_options_that_cannot_be_are_client_errors_before_anything_is_sent() -> None:
    with client_of(lambda _: httpx.Response(200, json={"models": [MODEL]})) as client:
        with pytest.raises(InvalidOption, match="no option 'max_token' of a caption job; it has prompt, prefix, avoid"):
            client.caption("x", max_token=3)
        with pytest.raises(InvalidOption, match=r"options\.temperature is -1"):
            client.generate(["x"], temperature=-1)
        with pytest.raises(InvalidOption, match="not of its type"):
            client.generate(["x"], images="three")
        with pytest.raises(InvalidOption, match="priority"):
            client.generate(["x"], priority=1000)
        with pytest.raises(ValueError, match="images"):
            client.generate(["x"], images=0)
