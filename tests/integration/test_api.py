"""The HTTP edge: who may do what, and how it says no."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.client import Conflict, InvalidRequest, NotFound
from orchestrator.db import workers
from orchestrator.db.session import connect, session_factory
from tests.system import System

pytestmark = pytest.mark.services
JOB = {"kind": "generate", "model": "m", "input": {"items": [{"prompt": "p"}]}}


@pytest.fixture
def system(environment: dict[str, str], tmp_path: Path) -> Iterator[System]:
    """An API alone, that knows of a model `m`."""
    started = System(environment, tmp_path, "m", JANUS_MAX_OPEN_JOBS_PER_TEAM="60")
    engine = connect(environment["JANUS_DATABASE_URL"])
    with session_factory(engine).begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
    engine.dispose()
    started.start_api()
    yield started
    started.stop()


class Caller:
    """Requests with a key, each over a connection of its own."""

    def __init__(self, system: System, key: str | None) -> None:
        self._url, self._headers = system.url, {"Authorization": f"Bearer {key}"} if key else {}

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **values: Any) -> httpx.Response:
        sent = self._headers | (headers or {})
        return httpx.request(method, self._url + path, headers=sent, timeout=30, **values)

    def get(self, path: str, **values: Any) -> httpx.Response:
        return self.request("GET", path, **values)

    def post(self, path: str, **values: Any) -> httpx.Response:
        return self.request("POST", path, **values)


def http(system: System, key: str | None) -> Caller:
    return Caller(system, key)


def test_api(system: System) -> None:
    """One start of the API for many questions."""
    _no_key_wrong_key_revoked_key(system)
    _scopes(system)
    _another_team(system)
    _idempotency(system)
    _refusals(system)
    _windows_and_deadlines(system)
    _weights(system)
    _odd_values(system)
    _pages(system)


def _no_key_wrong_key_revoked_key(system: System) -> None:
    for key in (None, "nonsense", system.make_key("x")[:-1] + "!"):
        answer = http(system, key).get("/v1/jobs")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    with system.client() as admin:
        key = system.make_key("leavers")
        assert http(system, key).get("/v1/jobs").status_code == 200
        admin.revoke_key(http(system, key).get("/v1/whoami").json()["key_id"])
        assert http(system, key).get("/v1/jobs").status_code == 401


def _scopes(system: System) -> None:
    reader, writer = system.make_key("readers", ["jobs:read"]), system.make_key("readers", ["jobs:write"])
    assert http(system, reader).post("/v1/jobs", json=JOB).status_code == 403
    assert http(system, writer).get("/v1/jobs").status_code == 403
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/teams"), ("GET", "/v1/teams"), ("POST", "/v1/keys")):
        assert http(system, reader).request(method, path, json={}).status_code == 403, path
    assert "jobs:write" in http(system, reader).post("/v1/uploads").json()["detail"]


def _another_team(system: System) -> None:
    owner, stranger = http(system, system.make_key("owners")), http(system, system.make_key("strangers"))
    job = owner.post("/v1/jobs", json=JOB).json()["id"]
    upload = owner.post("/v1/uploads").json()["id"]
    for verb in ("", "/results", "/failures", "/events"):
        assert owner.get(f"/v1/jobs/{job}{verb}").status_code == 200
        assert stranger.get(f"/v1/jobs/{job}{verb}").status_code == 404
    for verb in ("cancel", "pause", "resume", "retry"):
        assert stranger.post(f"/v1/jobs/{job}/{verb}").status_code == 404
    names = {"names": ["results.jsonl"]}
    assert stranger.post(f"/v1/jobs/{job}/downloads", json=names).status_code == 404
    assert stranger.post(f"/v1/uploads/{upload}/urls", json=names).status_code == 404
    assert stranger.post(f"/v1/uploads/{upload}/downloads", json=names).status_code == 404
    assert stranger.post("/v1/jobs", json={**JOB, "input": {"upload": upload, "manifest": "m"}}).status_code == 404
    assert stranger.get("/v1/jobs").json()["jobs"] == []
    escape = {"names": ["../../jobs/x/results.jsonl"]}
    assert owner.post(f"/v1/jobs/{job}/downloads", json=escape).status_code == 422
    assert owner.post(f"/v1/uploads/{upload}/urls", json=escape).status_code == 422


def _idempotency(system: System) -> None:
    client = http(system, system.make_key("repeaters"))
    headers = {"Idempotency-Key": "k1"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=JOB, headers=headers), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = client.post("/v1/jobs", json={**JOB, "priority": 3}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert client.post("/v1/jobs", json=JOB).json()["id"] != answers[0].json()["id"]
    uploads = [client.post("/v1/uploads", headers=headers) for _ in range(2)]
    assert [upload.status_code for upload in uploads] == [201, 200]
    assert len({upload.json()["id"] for upload in uploads}) == 1
    full = http(system, system.make_key("full"))
    first = full.post("/v1/jobs", json=JOB, headers=headers).json()["id"]
    while full.post("/v1/jobs", json=JOB).status_code == 201:
        pass
    refused = full.post("/v1/jobs", json=JOB)
    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_open_jobs")
    again = full.post("/v1/jobs", json=JOB, headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first)


def _windows_and_deadlines(system: System) -> None:
    client = http(system, system.make_key("sleepers"))
    made = client.post(
        "/v1/jobs",
        json={**JOB, "window": " mon,tue,wed  22:00-06:00 Europe/Berlin", "deadline_at": "2033-01-01T12:00:00+01:00"},
    ).json()
    assert made["window"] == "Mon-Wed 22:00-06:00 Europe/Berlin"
    assert made["deadline_at"] == "2033-01-01T11:00:00Z"
    assert client.get(f"/v1/jobs/{made['id']}").json() == made
    for field, value, words in (
        ("window", "22:00-06:00", "is not of its form"),
        ("window", "22:00-06:00 Europe/Atlantis", "there is no time zone 'Europe/Atlantis'"),
        ("window", 5, "string"),
        ("deadline_at", "2020-01-01T00:00:00Z", "must be in the future"),
        ("deadline_at", "9999-12-31T23:59:59-14:00", "within 3650 days"),
        ("deadline_at", "2033-01-01T12:00:00", "timezone"),
        ("deadline_at", 1893456000, "give a time such as"),
    ):
        refused = client.post("/v1/jobs", json={**JOB, field: value})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), (field, value)
        assert words in refused.text, refused.text


def _weights(system: System) -> None:
    admin, member = http(system, system.admin_key), http(system, system.make_key("weighed"))
    team = member.get("/v1/whoami").json()["team"]
    path = f"/v1/teams/{team['id']}"
    assert team["weight"] == 1
    assert member.request("PATCH", path, json={"weight": 1000}).status_code == 403
    for weight in (0, 1001, "5", True, None):
        assert admin.request("PATCH", path, json={"weight": weight}).status_code == 422, weight
    assert admin.request("PATCH", "/v1/teams/team_none", json={"weight": 2}).status_code == 404
    with system.client() as client:
        assert client.set_team_weight(team["id"], 7).weight == 7
        assert next(client.audit()).action == "team.changed"
    assert member.get("/v1/whoami").json()["team"]["weight"] == 7


def _odd_values(system: System) -> None:
    """What Postgres cannot hold is refused or kept as text, and is never the server's failure."""
    client = http(system, system.make_key("odd"))
    for items in (
        [{"prompt": "a\x00b"}],
        [{"prompt": "\ud800"}],
        [{"prompt": "p", "seed": float("nan")}],
        [None, 3, "x"],
    ):
        body = json.dumps({**JOB, "input": {"items": items}})
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 201, (items, answer.text)
    for body in ({**JOB, "name": "a\x00b"}, {**JOB, "name": "a\ud800"}, {**JOB, "options": {"guidance": float("inf")}}):
        answer = client.post("/v1/jobs", content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code == 422, (body, answer.text)
    job = client.get("/v1/jobs").json()["jobs"][0]["id"]
    assert client.get(f"/v1/jobs/{job}/results", params={"from_index": 10**30}).status_code == 422
    assert client.get("/v1/jobs/%00").status_code in (404, 422)


def _refusals(system: System) -> None:
    client = http(system, system.admin_key)
    cases: list[tuple[dict[str, Any], str]] = [
        ({**JOB, "model": "typo"}, "typo"),
        ({**JOB, "kind": "draw"}, "kind"),
        ({**JOB, "options": {"guidance": -1}}, "guidance"),
        ({**JOB, "options": {"guidence": 5}}, "guidence"),
        ({**JOB, "input": {}}, "items"),
        ({**JOB, "input": {"items": []}}, "empty"),
        ({**JOB, "colour": "red"}, "colour"),
        ({**JOB, "input": {"items": [{}] * 10_001}}, "JANUS_MAX_INLINE_ITEMS"),
    ]
    for body, says in cases:
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 422, body
        assert says in answer.json()["detail"]
    assert client.get("/v1/jobs/job_nothing").status_code == 404
    assert client.get("/nothing").json()["code"] == "not_found"
    assert client.post("/v1/jobs", content=b"{").status_code == 422
    assert client.post("/v1/jobs", content=b"x" * (8 * 2**20 + 1)).status_code == 413
    assert client.get("/v1/jobs", params={"cursor": "nonsense"}).status_code == 422
    assert client.get("/v1/jobs", params={"limit": 101}).status_code == 422
    for body, says in (
        ({"kind": "caption", "model": "m", "options": {"prompt": "x" * 20_001}, "input": {"items": [1]}}, "20001"),
        ({**JOB, "options": {"images": 64}, "shard_items": 1024}, "shard_items"),
        ({**JOB, "options": {"top_k": 10**22}}, "top_k"),
    ):
        answer = client.post("/v1/jobs", json=body)
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True), answer.text
    odd_key = b"Bearer jns_live_" + b"a" * 12 + b"_" + b"b" * 43 + b"\xe9" * 6
    assert httpx.get(f"{system.url}/v1/jobs", headers={b"Authorization": odd_key}).status_code == 401
    _length_and_chunks(system)


def _length_and_chunks(system: System) -> None:
    """A body that claims a length and comes in chunks would be read without end."""
    with socket.create_connection(("127.0.0.1", system.port), 10) as connection:
        connection.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n[[[[[\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 411")


def _pages(system: System) -> None:
    key = system.make_key("many")
    ids = [http(system, key).post("/v1/jobs", json=JOB).json()["id"] for _ in range(55)]
    with system.client(key) as client:
        assert [job.id for job in client.jobs()] == ids[::-1]
        job = client.attach(ids[0])
        job.cancel()
        with pytest.raises(Conflict):
            job.retry_failures()
        with pytest.raises(NotFound):
            client.attach("job_x")
        with pytest.raises(InvalidRequest):
            job.urls(["../x"])
