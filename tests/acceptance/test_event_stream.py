"""A job's events as they happen, over a connection that stays open."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from orchestrator.api.streams import MAX_STREAMS
from orchestrator.client import Job
from tests.system import System

pytestmark = pytest.mark.services


def listen(system: System, job: Job, key: str, **headers: str) -> httpx.Response:
    """Until the server ends the stream."""
    sent = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream", **headers}
    return httpx.get(f"{system.url}/v1/jobs/{job.id}/events", headers=sent, timeout=60)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = answer.text.replace("\r", "").splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [f"event: {event['type']}" for event in events] == [line for line in lines if line.startswith("event: ")]
    return events


def test_a_stream_brings_every_event_once_and_ends_with_the_job(system: System) -> None:
    key = system.make_key("listeners")
    with system.client(key) as client:
        job = client.generate([f"p{n}" for n in range(12)], shard_items=3)
        heard = events_of(listen(system, job, key))
        assert [event["id"] for event in heard] == [event.id for event in job.events()]
        assert heard[-1]["type"] == "job.completed"
        again = events_of(listen(system, job, key, **{"Last-Event-ID": str(heard[3]["id"])}))
        assert again == heard[4:], "whoever comes again hears what it missed"


def test_a_stream_ends_with_its_key_and_there_are_not_too_many(system: System) -> None:
    key = system.make_key("leavers")
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    with system.client(key) as client, system.client() as admin:
        job = client.generate([f"p{n}" for n in range(400)], model="tiny")
        job.pause()
        url = f"{system.url}/v1/jobs/{job.id}/events"
        streams = [httpx.Client(timeout=60) for _ in range(MAX_STREAMS)]
        opened = [stream.send(stream.build_request("GET", url, headers=headers), stream=True) for stream in streams]
        assert {answer.status_code for answer in opened} == {200}
        lines = [answer.iter_lines() for answer in opened]
        assert all(next(each) for each in lines)
        refused = httpx.get(url, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "60"
        admin.revoke_key(client.whoami().key_id)
        for each, stream in zip(lines, streams, strict=True):
            assert list(each), "it ends"
            stream.close()
