"""Estimates from the client: sources are counted, nothing of them is sent, and both faces ask the same."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cli.estimate import in_words
from orchestrator.client import AsyncClient, BadSource, Client, InvalidOption, NothingToSubmit, describe_rate
from orchestrator.schemas import EstimateView, JobView
from tests.unit.test_client import NOW, VIEW

ESTIMATE: dict[str, Any] = {
    "kind": "caption", "model": "m", "items": 5, "seconds": None, "items_per_second": None, "workers": 0,
    "measured": None, "ahead": {"jobs": 0, "items": 0, "seconds": None}, "starts_at": None, "ends_at": None,
    "opens_at": None, "closes_at": None, "fits_window": None, "fits_deadline": None, "notes": ["nothing was measured"],
}  # fmt: skip
MODEL = {"name": "m", "family": "f", "revision": "r", "served": True, "registered_at": NOW}


class Server:
    """Answers, and keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"models": [MODEL]})
        assert (request.method, request.url.path) == ("POST", "/v1/estimates")
        self.asked.append(json.loads(request.read()))
        return httpx.Response(200, json=ESTIMATE)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.png").touch()
    return tmp_path


def test_images_are_counted_and_their_options_are_told(pictures: Path) -> None:
    server = Server()
    window = "22:00-06:00 Europe/Berlin"
    with Client("http://janus.test", "k", transport=httpx.MockTransport(server)) as client:
        view = client.estimate("caption", pictures, window=window, deadline_at=datetime(2030, 1, 1, tzinfo=UTC))
        client.estimate("caption", num_items=7, priority=3)
    assert view.items == 5
    first, second = server.asked
    assert (first["items"], first["window"], first["deadline_at"]) == (5, window, "2030-01-01T00:00:00Z")
    assert (second["items"], second["priority"], second["options"]["max_tokens"]) == (7, 3, 512)


def test_results_that_are_there_are_in_no_estimates_way(pictures: Path, tmp_path: Path) -> None:
    server, out = Server(), tmp_path / "captions.jsonl"
    out.write_text('{"index": 0, "id": "0.png", "caption": "c"}\n')
    with Client("http://janus.test", "k", transport=httpx.MockTransport(server)) as client:
        client.estimate("caption", pictures, out=out)
        client.estimate("caption", pictures, out=out, existing="skip")
    assert [asked["items"] for asked in server.asked] == [5, 4]


def test_an_estimate_of_drawings_says_how_many_pictures() -> None:
    view = EstimateView.model_validate(ESTIMATE | {"kind": "generate", "images": 20})
    assert in_words(view)[0] == "5 items (20 pictures) of a generate job of m"


def test_prompts_are_counted_with_their_sweep_and_both_faces_ask_the_same() -> None:
    blocking, awaited = Server(), Server()
    given: dict[str, Any] = {"sweep": {"seed": [1, 2, 3]}, "images": 2}
    with Client("http://janus.test", "k", transport=httpx.MockTransport(blocking)) as client:
        client.estimate("generate", ["a cat", "a dog"], **given)

    async def ask() -> None:
        async with AsyncClient("http://janus.test", "k", transport=httpx.MockTransport(awaited)) as other:
            await other.estimate("generate", ["a cat", "a dog"], **given)

    asyncio.run(ask())
    assert blocking.asked == awaited.asked
    assert (blocking.asked[0]["items"], blocking.asked[0]["options"]["images"]) == (6, 2)


def test_what_is_done_already_does_not_count(pictures: Path) -> None:
    server = Server()
    out = pictures / "captions"
    out.mkdir()
    (out / "0.txt").write_text("it has one")
    with Client("http://janus.test", "k", transport=httpx.MockTransport(server)) as client:
        client.estimate("caption", pictures, out=out, existing="skip")
        assert server.asked[0]["items"] == 4
        with pytest.raises(NothingToSubmit):
            client.estimate("caption", out)
        with pytest.raises(BadSource):
            client.estimate("caption", "not there")
        for wrong in (("draw", ["p"]), ("caption", "s3://bucket/folder/")):
            with pytest.raises(InvalidOption):
                client.estimate(*wrong)
        with pytest.raises(InvalidOption):
            client.estimate("caption", pictures, images=2)


def test_it_is_told_in_words() -> None:
    told = in_words(EstimateView.model_validate(ESTIMATE))
    assert told == ["5 items of a caption job of m", "ahead: nothing waits", "note: nothing was measured"]
    measured = {"items": 100, "workers": 2, "worker_seconds": 50, "items_per_second": 2, "since": NOW, "until": NOW}
    known = ESTIMATE | {
        "seconds": 90.0,
        "workers": 1,
        "measured": measured,
        "starts_at": NOW,
        "ends_at": NOW,
        "notes": [],
    }
    known |= {"opens_at": NOW, "closes_at": NOW, "fits_window": False, "fits_deadline": True}
    known |= {"ahead": {"jobs": 1, "items": 1000, "seconds": 60.0}}
    lines = in_words(EstimateView.model_validate(known))
    assert lines[0] == "5 items of a caption job of m: 1m30s of work for 1 worker"
    assert lines[1].startswith("measured: 100 items by 2 workers, 2 items/s each, from ")
    assert lines[2] == "ahead, or beside it: 1 job with 1,000 items, 1m00s of work"
    assert lines[5].endswith("it does not fit, and goes on in the next ones")
    assert lines[6] == "deadline: met"


def test_a_line_about_a_job_has_its_reason_and_how_long_it_takes() -> None:
    running = VIEW | {"items_per_second": 2.0, "eta_seconds": 90.0}
    assert describe_rate(JobView.model_validate(running)) == "2.0 items/s, 1m30s left"
    waiting = running | {"waiting_reason": "its window opens at 22:00 UTC"}
    assert describe_rate(JobView.model_validate(waiting)) == "its window opens at 22:00 UTC, 1m30s left"
    assert describe_rate(JobView.model_validate(VIEW | {"items_per_second": 2.0})) == "2.0 items/s"
    assert describe_rate(JobView.model_validate(VIEW)) == ""
