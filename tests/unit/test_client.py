"""The client on its own: what it sends, when it sends it again, and what it reads from disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestrator.client import (
    AuthenticationFailed,
    BadOutput,
    BadSource,
    Client,
    ClientError,
    ConnectionFailed,
    Output,
    RateLimited,
    ServerError,
    _retries,
    format_seconds,
)
from orchestrator.client._sources import SourceItem, read_image_sources, read_prompt_sources
from orchestrator.schemas import GenerateJobCreate, JobInput

NOW = "2026-01-01T00:00:00Z"
VIEW = {
    "id": "job_1", "name": "n", "kind": "generate", "model": "m", "options": {}, "state": "running", "priority": 0,
    "state_reason": None, "waiting_reason": None, "items": {"total": 1, "results": 0, "failures": 0, "cancelled": 0},
    "items_per_second": None, "eta_seconds": None, "created_at": NOW, "started_at": None, "finished_at": None,
    "paused_at": None, "cancel_requested_at": None, "manifest_sha256": None,
    "a_field_of_tomorrow": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY_SECONDS", 0.0)


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://janus.test", "k", max_retries=3, transport=httpx.MockTransport(answer))


def submit(client: Client, key: str | None = None) -> Any:
    request = GenerateJobCreate(kind="generate", model="m", input=JobInput(items=[{"prompt": "p"}]))
    return client._driver.run(client._create(request, key))


def test_one_idempotency_key_for_all_tries_of_a_call_and_another_for_the_next_call() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["idempotency-key"])
        return httpx.Response(503) if len(seen) in (1, 2) else httpx.Response(201, json=VIEW)

    with client_of(answer) as client:
        assert submit(client).id == "job_1"
        submit(client)
        submit(client, "mine")
    assert len(set(seen[:3])) == 1
    assert len(set(seen)) == 3
    assert seen[-1] == "mine"


def test_key_goes_with_every_request() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer k"
        return httpx.Response(200, json=VIEW)

    with client_of(answer) as client:
        client.attach("job_1")


def test_problem_becomes_an_error_with_the_request_id() -> None:
    problem = {"code": "unauthorized", "detail": "this key is not valid", "request_id": "req_7", "status": 401}
    with (
        client_of(lambda _: httpx.Response(401, json=problem)) as client,
        pytest.raises(AuthenticationFailed) as caught,
    ):
        client.attach("job_1")
    assert (caught.value.code, caught.value.request_id) == ("unauthorized", "req_7")
    assert "this key is not valid" in str(caught.value)


def test_page_of_a_proxy_is_told_as_it_is() -> None:
    with (
        client_of(lambda _: httpx.Response(502, text="bad gateway")) as client,
        pytest.raises(ServerError, match="bad"),
    ):
        client.attach("job_1")


def test_call_that_may_have_been_done_is_not_sent_twice() -> None:
    calls = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise httpx.ReadTimeout("late", request=request)

    with client_of(answer) as client:
        with pytest.raises(ConnectionFailed, match="janus doctor"):
            client.create_team("a")
        assert calls == 1
        with pytest.raises(ConnectionFailed):
            client.attach("job_1")
        assert calls == 1 + 4


def test_server_is_asked_to_wait_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    in_nine = format_datetime(datetime.now(UTC) + timedelta(seconds=9.5), usegmt=True)
    headers = [{"retry-after": "7"}, {"retry-after": in_nine}, {"retry-after": "soon"}]
    answers = iter([*(httpx.Response(429, headers=each) for each in headers), httpx.Response(200, json=VIEW)])
    monkeypatch.setattr("orchestrator.client._steps.time", SimpleNamespace(sleep=waited.append))
    with client_of(lambda _: next(answers)) as client:
        client.attach("job_1")
    assert waited == [7.0, pytest.approx(9, abs=1), 0]


def test_server_that_is_asked_too_often_says_for_how_long() -> None:
    answer = httpx.Response(429, headers={"retry-after": "30"}, json={"code": "too_many_requests"})
    with (
        client_of(lambda _: answer) as client,
        pytest.raises(RateLimited) as caught,
    ):
        client.with_options(max_retries=0).attach("job_1")
    assert caught.value.retry_after_seconds == 30


def test_missing_server_or_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JANUS_URL", raising=False)
    monkeypatch.delenv("JANUS_API_KEY", raising=False)
    with pytest.raises(ClientError, match="JANUS_URL"):
        Client()
    with pytest.raises(ClientError, match="JANUS_API_KEY"):
        Client("http://x")


def test_folder_is_read_in_name_order_with_names_relative_to_it(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", "a/notes.txt", "c d#%.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = list(read_image_sources([tmp_path]))
    assert [item.line for item in found] == [{"id": "a/z.jpg"}, {"id": "b.PNG"}, {"id": "c d#%.webp"}]
    assert found[0].files == [tmp_path / "a/z.jpg"]


def test_manifest_names_are_relative_to_it_and_bad_lines_stay_as_they_are(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"image": "a.jpg", "prompt": "?"}\n\n{oops\n{"image": ["a.jpg", "b.jpg"], "id": "two"}\n{}\n')
    assert list(read_image_sources([manifest])) == [
        SourceItem({"id": "a.jpg", "image": "a.jpg", "prompt": "?"}, [tmp_path / "a.jpg"]),
        SourceItem("{oops"),
        SourceItem({"image": ["a.jpg", "b.jpg"], "id": "two"}, [tmp_path / "a.jpg", tmp_path / "b.jpg"]),
        SourceItem({}),
    ]


def test_prompts_from_words_text_and_objects(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\n  two \n")
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "three", "seed": 3}) + "\n")
    given = [SourceItem({"prompt": prompt}) for prompt in ("zero", "one", "two")]
    assert list(read_prompt_sources(["zero"], tmp_path / "p.txt")) == given
    assert list(read_prompt_sources([], tmp_path / "p.jsonl")) == [SourceItem({"prompt": "three", "seed": 3})]


@pytest.mark.parametrize("source", ["nothing.jpg", "*.nothing", "s3://bucket/x", "table.parquet", "x.tar"])
def test_source_that_cannot_be_read_is_told(source: str) -> None:
    with pytest.raises(BadSource):
        list(read_image_sources([source]))


def test_output_that_cannot_be_written_is_told() -> None:
    assert Output.of("a.parquet").form == "parquet"
    assert Output.of("folder").form == "folder"
    with pytest.raises(BadOutput, match="xlsx"):
        Output.of("a.xlsx")
    with pytest.raises(BadOutput, match="one of jsonl, csv"):
        Output.of("a.jsonl", "xml")
    for given in ({"existing": "append"}, {"form": "webdataset", "existing": "skip"}, {"tars": ["a.tar"]}):
        with pytest.raises(BadOutput):
            Output.of("a.jsonl" if "form" not in given else "folder", **given)  # type: ignore[arg-type]


def test_seconds_for_people() -> None:
    assert [format_seconds(s) for s in (4.4, 65, 3725)] == ["4s", "1m05s", "1h02m"]
