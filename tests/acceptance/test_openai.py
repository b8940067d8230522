"""The unmodified `openai` package drives batches to their ends, on real servers."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch
from PIL import Image

from tests.system import System

pytestmark = pytest.mark.services
CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"


@pytest.fixture
def client(system: System) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{system.url}/openai/v1", api_key=system.make_key("openai")) as opened:
        yield opened


def data_url(photo: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()


def chat(custom_id: str, *urls: str, text: str = "Describe this image.", **body: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    body = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": parts}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def drawing(custom_id: str, prompt: str, **body: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": prompt} | body
    return {"custom_id": custom_id, "method": "POST", "url": IMAGES, "body": body}


def send(client: openai.OpenAI, lines: list[Any]) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.files.create(file=("requests.jsonl", text.encode()), purpose="batch").id


def wait(client: openai.OpenAI, batch_id: str, *states: str, seconds: float = 90) -> Batch:
    give_up_at = time.monotonic() + seconds
    while (batch := client.batches.retrieve(batch_id)).status not in states:
        assert time.monotonic() < give_up_at, batch
        assert batch.status not in ("completed", "failed", "expired", "cancelled"), batch
        time.sleep(0.1)
    return batch


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id
    lines = client.files.content(file_id).text.splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["custom_id"] for record in records}) == len(records)
    assert client.files.retrieve(file_id).bytes == sum(len(line.encode()) + 1 for line in lines)
    return {record["custom_id"]: record for record in records}


def test_captions(system: System, client: openai.OpenAI, photos: Path) -> None:
    names = sorted(photos.iterdir())
    lines = [
        chat("one", data_url(names[0])),
        chat("long", data_url(names[1]), max_tokens=9, seed=3, temperature=0.5),
        chat("two", data_url(names[0]), data_url(names[1]), text="Which is brighter?"),
        "{broken",
        chat("one", data_url(names[2])),
        chat("other model", data_url(names[0]), model="nobody-has-it"),
        chat("no image"),
        chat("odd", data_url(names[0]), top_logprobs=3),
        chat("not a picture", "data:image/png;base64," + base64.b64encode(b"no picture").decode()),
        chat("by url", "https://example.org/a.jpg"),
    ]
    batch = client.batches.create(
        input_file_id=send(client, lines), endpoint=CHAT, completion_window="24h", metadata={"night": "7"}
    )
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("validating", None, None)
    batch = wait(client, batch.id, "completed")
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 10, "completed": 3, "failed": 7}
    assert batch.metadata == {"night": "7"}
    assert batch.model == "tiny"
    assert batch.expires_at == batch.created_at + 86_400
    times = (batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at)
    assert all(times)
    assert list(times) == sorted(times)  # type: ignore[type-var]
    assert [batch.failed_at, batch.expired_at, batch.cancelled_at, batch.errors] == [None] * 4

    output = read(client, batch.output_file_id)
    assert list(output) == ["one", "long", "two"], "in the order of the input"
    for record in output.values():
        answer = record["response"]["body"]
        assert (record["error"], record["response"]["status_code"], answer["object"]) == (None, 200, "chat.completion")
        assert answer["choices"][0]["message"]["content"]
    assert output["long"]["response"]["body"]["seed"] == 3
    assert output["long"]["response"]["body"]["choices"][0]["finish_reason"] == "length"

    with system.client(client.api_key) as ours:  # the same question, asked our way
        job = ours.caption(names[0], model="tiny", prompt="Describe this image.", max_tokens=4)
        job.wait(60)
        [result] = job.results()
    assert output["one"]["response"]["body"]["choices"][0]["message"]["content"] == result["caption"]

    raw = client.files.content(batch.error_file_id or "").text.splitlines()
    errors = {record["custom_id"]: record["response"] for record in map(json.loads, raw)}
    codes = {custom_id: response["body"]["error"]["code"] for custom_id, response in errors.items()}
    assert codes == {
        None: "invalid_json_line",
        "one": "duplicate_custom_id",
        "other model": "mismatched_model",
        "no image": "missing_required_parameter",
        "odd": "unknown_parameter",
        "not a picture": "image_unreadable",
        "by url": "url_refused",
    }
    assert {response["status_code"] for response in errors.values()} == {400}
    assert errors[None]["body"]["error"]["message"].startswith("line 4: ")
    assert errors["odd"]["body"]["error"]["param"] == "body.top_logprobs"


def test_images_of_an_upload(system: System, client: openai.OpenAI, photos: Path) -> None:
    headers = {"Authorization": f"Bearer {client.api_key}"}
    upload = httpx.post(f"{system.url}/v1/uploads", headers=headers).json()["id"]
    body = {"names": ["photos/a.jpg"]}
    [url] = httpx.post(f"{system.url}/v1/uploads/{upload}/urls", headers=headers, json=body).json()["urls"]
    httpx.put(url, content=next(photos.iterdir()).read_bytes()).raise_for_status()
    lines = [chat("named", "photos/a.jpg"), chat("missing", "photos/b.jpg"), chat("climbs", "../a.jpg")]
    batch = client.batches.create(
        input_file_id=send(client, lines), endpoint=CHAT, completion_window="24h", extra_body={"upload": upload}
    )
    batch = wait(client, batch.id, "completed")
    assert list(read(client, batch.output_file_id)) == ["named"]
    errors = read(client, batch.error_file_id)
    codes = {name: record["response"]["body"]["error"]["code"] for name, record in errors.items()}
    assert codes == {"climbs": "invalid_value", "missing": "image_missing"}


def test_drawings(client: openai.OpenAI) -> None:
    lines = [
        drawing("inline", "a red circle", n=2, seed=11),
        drawing("linked", "a blue star", response_format="url", size="auto"),
        drawing("again", "a blue star"),
        drawing("wide", "a red circle", size="1024x1024"),
        drawing("empty", " "),
        drawing("many", "a red circle", n=65),
    ]
    batch = client.batches.create(input_file_id=send(client, lines), endpoint=IMAGES, completion_window="24h")
    batch = wait(client, batch.id, "completed")
    output = {name: record["response"]["body"] for name, record in read(client, batch.output_file_id).items()}
    assert {name: [image["seed"] for image in body["data"]] for name, body in output.items()} == {
        "inline": [11, 12],
        "linked": [2],  # behind the two seeds that stand before it
        "again": [3],
    }
    for image in output["inline"]["data"]:
        picture = Image.open(io.BytesIO(base64.b64decode(image["b64_json"])))
        assert f"{picture.width}x{picture.height}" == output["inline"]["size"]
    linked = httpx.get(output["linked"]["data"][0]["url"])
    assert linked.content.startswith(b"\x89PNG")
    errors = read(client, batch.error_file_id)
    params = {name: record["response"]["body"]["error"]["param"] for name, record in errors.items()}
    assert params == {"wide": "body.size", "empty": "body.prompt", "many": "body.n"}


def test_nothing_right_and_nothing_there(client: openai.OpenAI) -> None:
    batch = client.batches.create(input_file_id=send(client, ["nonsense"]), endpoint=CHAT, completion_window="24h")
    batch = wait(client, batch.id, "failed")
    assert batch.failed_at
    assert batch.errors
    assert batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == ("invalid_json_line", 1)
    assert batch.output_file_id is None
    assert client.files.content(batch.error_file_id or "").text.count("\n") == 1
    batch = client.batches.create(input_file_id=send(client, ["", ""]), endpoint=CHAT, completion_window="24h")
    batch = wait(client, batch.id, "failed")
    assert batch.errors
    assert batch.errors.data
    assert batch.errors.data[0].code == "empty_file"


def test_cancel(client: openai.OpenAI, photos: Path) -> None:
    url = data_url(next(photos.iterdir()))
    lines = [chat(f"{n}", url, text=f"Question {n}", max_tokens=200 if n else 1) for n in range(400)]
    batch = client.batches.create(input_file_id=send(client, lines), endpoint=CHAT, completion_window="24h")
    give_up_at = time.monotonic() + 60
    while not (batch.request_counts and batch.request_counts.completed):
        assert time.monotonic() < give_up_at, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = wait(client, batch.id, "cancelled")
    assert client.batches.cancel(batch.id).status == "cancelled", "asking twice is harmless"
    assert batch.cancelling_at
    assert batch.cancelled_at
    done, undone = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert len(done) + len(undone) == 400, "what was finished, and what was not"
    assert "0" in done
    assert {record["error"]["code"] for record in undone.values()} == {"batch_cancelled"}


def test_expiry(client: openai.OpenAI, photos: Path) -> None:
    """What was finished in time can be fetched."""
    url = data_url(next(photos.iterdir()))
    lines = [chat(f"{n}", url, text=f"Question {n}", max_tokens=200 if n else 1) for n in range(400)]
    batch = client.batches.create(input_file_id=send(client, lines), endpoint=CHAT, completion_window="4s")
    batch = wait(client, batch.id, "expired")
    assert batch.expired_at
    assert batch.expires_at
    assert batch.expired_at >= batch.expires_at
    done, undone = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert len(done) + len(undone) == 400
    assert "0" in done
    assert {record["error"]["code"] for record in undone.values()} == {"batch_expired"}


def test_lists_and_files(client: openai.OpenAI) -> None:
    file_ids = [send(client, [drawing("a", f"prompt {number}")]) for number in range(3)]
    newest = client.files.list(limit=2)
    assert [file.id for file in newest.data] == file_ids[:0:-1]
    assert [file.id for file in client.files.list(limit=2, after=newest.data[-1].id).data][:1] == file_ids[:1]
    assert client.files.content(file_ids[0]).json()["custom_id"] == "a"
    assert client.files.retrieve(file_ids[0]).filename == "requests.jsonl"
    made = [
        client.batches.create(input_file_id=file_id, endpoint=IMAGES, completion_window="24h").id
        for file_id in file_ids
    ]
    assert [batch.id for _, batch in zip(range(3), client.batches.list(limit=2), strict=False)] == made[::-1]
    for batch_id in made:
        wait(client, batch_id, "completed")
    assert client.files.delete(file_ids[0]).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_ids[0])
    with pytest.raises(openai.NotFoundError):
        client.files.content(file_ids[0])
    assert client.batches.retrieve(made[0]).input_file_id == file_ids[0]


def test_refusals_are_the_packages_own_exceptions(system: System, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.batches.retrieve("batch_nothing")
    assert (missing.value.code, missing.value.type) == ("not_found", "not_found_error")
    file_id = send(client, [drawing("a", "b")])
    with pytest.raises(openai.BadRequestError) as wrong:
        client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
    assert wrong.value.param == "endpoint"
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        client.batches.create(input_file_id=file_id, endpoint=IMAGES, completion_window="soon")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=b"{}", purpose="vision")
    many = {str(number): "x" for number in range(17)}
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id=file_id, endpoint=IMAGES, completion_window="24h", metadata=many)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="jns_live_nothing").files.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=system.make_key("openai", ["jobs:read"])).files.create(file=b"{}", purpose="batch")
    stranger = client.with_options(api_key=system.make_key("strangers"))
    for ask in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file_id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.create(input_file_id=file_id, endpoint=IMAGES, completion_window="24h")
    assert stranger.files.list().data == []
