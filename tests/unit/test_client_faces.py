"""Client and AsyncClient are one client: the same calls, and the same requests on the wire."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.client import AsyncClient, AsyncJob, Client, Job, ServerFault, _retries
from orchestrator.client._faces import Call, Listing
from orchestrator.client._steps import Driver, Emit, Pause, Step, Work, drain, work
from orchestrator.schemas import KeyCreate
from tests.unit.test_client import NOW, VIEW

TEAM = {"id": "t", "name": "n", "weight": 1, "created_at": NOW}


LISTS = ("failures", "events", "audit", "models", "workers", "keys", "teams")
ANYTHING = VIEW | {"urls": ["u"], "expires_seconds": 1, "team": TEAM, "key_id": "k", "scopes": [], "jobs": [VIEW]}
USE = {"limit": None, "used": 0}
ANYTHING |= {
    "in_flight": USE,
    "per_day": USE,
    "stored_bytes": USE,
    "day_ends_at": NOW,
    "measured_at": None,
    "team_id": "t",
}
ANYTHING |= dict.fromkeys(LISTS, ()) | dict.fromkeys(("next_cursor", "next_index", "next_id"))


class Recorder:
    """An API that answers every second request with 503, so that retries are seen too."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, bool]] = []
        self.keys: list[str | None] = []
        self.request_ids: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        key = request.headers.get("idempotency-key")
        self.seen.append((request.method, str(request.url), request.read(), key is not None))
        self.keys.append(key)
        self.request_ids.append(request.headers["x-request-id"])
        if len(self.seen) % 2:
            return httpx.Response(503, headers={"retry-after": "0"})
        return httpx.Response(200, json=ANYTHING)


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("whoami", (), {}),
    ("models", (), {}),
    ("workers", (), {}),
    ("keys", ("team",), {}),
    ("attach", ("job_1",), {}),
    ("revoke_key", ("key_1",), {}),
    ("quota", (), {}),
    ("set_quota", ("team_1",), {"per_day": 5}),
]
LISTINGS = ["jobs", "audit"]
JOB_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("refresh", (), {}),
    ("cancel", (), {}),
    ("pause", (), {}),
    ("resume", (), {}),
    ("retry_failures", (), {"codes": ["b", "a", "b"], "idempotency_key": "mine"}),
    ("retry_failures", (), {}),
    ("approve", (), {"sample": 5, "prompt": "p", "guidance": None}),
    ("reject", (), {}),
    ("urls", (["a", "b"],), {}),
    ("delete", (), {}),
]
JOB_LISTINGS = ["failures", "events"]


def drive_blocking(recorder: Recorder) -> None:
    with Client("http://janus.test", "k", transport=httpx.MockTransport(recorder)) as client:
        for name, args, kwargs in CALLS:
            getattr(client, name)(*args, **kwargs)
        for name in LISTINGS:
            list(getattr(client, name)())
        job = client.attach("job_1")
        for name, args, kwargs in JOB_CALLS:
            getattr(job, name)(*args, **kwargs)
        for name in JOB_LISTINGS:
            list(getattr(job, name)())


async def drive_awaited(recorder: Recorder) -> None:
    async with AsyncClient("http://janus.test", "k", transport=httpx.MockTransport(recorder)) as client:
        for name, args, kwargs in CALLS:
            await getattr(client, name)(*args, **kwargs)
        for name in LISTINGS:
            assert len([each async for each in getattr(client, name)()]) == (name == "jobs")
        job = await client.attach("job_1")
        assert isinstance(job, AsyncJob)
        for name, args, kwargs in JOB_CALLS:
            await getattr(job, name)(*args, **kwargs)
        for name in JOB_LISTINGS:
            assert [each async for each in getattr(job, name)()] == []


def test_both_send_the_same_requests_again_with_the_same_key() -> None:
    blocking, awaited = Recorder(), Recorder()
    drive_blocking(blocking)
    asyncio.run(drive_awaited(awaited))
    assert blocking.seen == awaited.seen
    for recorder in (blocking, awaited):
        tries = list(zip(recorder.keys[::2], recorder.keys[1::2], strict=True))
        assert all(first == second for first, second in tries)
        assert "mine" in recorder.keys
        assert len({key for key in recorder.keys if key}) == 2
        assert recorder.request_ids[::2] == recorder.request_ids[1::2]
        assert len(set(recorder.request_ids)) == len(recorder.request_ids) / 2
    (retry, _) = [body for method, url, body, _ in blocking.seen if url.endswith("/retry")][:2]
    assert retry == b'{"codes":["a","b"]}'
    [approve] = {body for _, url, body, _ in blocking.seen if url.endswith("/approve")}
    assert json.loads(approve) == {"options": {"prompt": "p", "guidance": None}, "sample": 5}


def test_every_public_call_is_there_twice_with_words_of_its_own() -> None:
    for face in (Client, AsyncClient, Job, AsyncJob):
        calls = [name for name, value in inspect.getmembers(face) if isinstance(value, Call | Listing)]
        assert calls
        assert [name for name in calls if not getattr(face, name).__doc__] == []


def test_options_of_a_copy_are_its_own_and_connections_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_DELAY_SECONDS", 0.0)
    timeouts: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        return httpx.Response(500)

    with Client("http://janus.test", "k", transport=httpx.MockTransport(answer)) as client:
        for asked in (client.with_options(timeout_seconds=3, max_retries=1), client.with_options(max_retries=0)):
            with pytest.raises(ServerFault):
                asked.attach("job_1")
        with pytest.raises(ServerFault):
            client.create_key(KeyCreate(team="t", name="n"))
    assert timeouts == [3, 3, 60, 60]


def test_errors_are_raised_inside_the_steps_and_values_reach_them() -> None:
    told: list[str] = []

    def numbers() -> Iterator[Any]:
        try:
            yield Work(lambda: 1 / 0)
        except ZeroDivisionError:
            told.append("caught")
        yield Emit((yield Work(lambda: 7)))
        try:
            yield Pause(0)
            yield Emit(8)
        finally:
            told.append("closed")

    def steps() -> Iterator[Step]:
        yield from drain(numbers(), told.append)  # type: ignore[arg-type]
        return (yield from work(lambda: "end"))  # type: ignore[return-value]

    stream = Driver().iterate(numbers())  # type: ignore[arg-type]
    assert next(stream) == 7
    assert next(stream) == 8
    stream.close()  # type: ignore[attr-defined]
    assert told == ["caught", "closed"]
    assert Driver().run(steps()) == "end"  # type: ignore[arg-type]
    assert told[2:] == ["caught", 7, 8, "closed"]
