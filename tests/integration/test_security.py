"""Nobody is let in: every route and every object asked with no key, with too small a key, and with another team's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from orchestrator.admin import prune_audit
from orchestrator.api.gate import OPEN_PATHS
from orchestrator.artifacts import open_store
from orchestrator.db import jobs, shards, teams, workers
from orchestrator.db.session import connect, session_factory
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import GenerateOptions, JobKind, JobState
from orchestrator.domain.keys import SCOPES
from orchestrator.domain.shards import Part, ShardState
from tests.system import System, api_answers, free_port

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
JOB = {"kind": "generate", "model": "m", "input": {"items": [{"prompt": "a prompt of the owners"}]}}
ENDED: dict[str, Any] = {"kind": JobKind.generate, "model": "m", "options": GenerateOptions(), "input": {}}
NAMES = {"names": ["results.jsonl"]}
BODIES: dict[str, Any] = {
    "POST /v1/jobs": JOB,
    "POST /v1/jobs/{job_id}/downloads": NAMES,
    "POST /v1/jobs/{job_id}/retry": {},
    "POST /v1/jobs/{job_id}/approve": {},
    "POST /v1/jobs/{job_id}/replay": {"index": 0},
    "POST /v1/uploads/{upload_id}/urls": NAMES,
    "POST /v1/uploads/{upload_id}/downloads": NAMES,
    "POST /v1/webhooks": {"url": "https://example.org/hear"},
    "POST /openai/v1/files": {},  # a form: `World.call` makes it
    "POST /openai/v1/batches": {"endpoint": "/v1/images/generations", "completion_window": "24h"},
    "POST /v1/teams": {"name": "a new team"},
    "PATCH /v1/teams/{team_id}": {"weight": 2},
    "PUT /v1/teams/{team_id}/quotas": {"in_flight": 10_000},
    "POST /v1/estimates": {"kind": "caption", "model": "m", "items": 5},
    "POST /v1/keys": {"team": "owners", "name": "a new key"},
    "POST /v1/keys/{key_id}/rotate": {},
    "PUT /v1/jobs/{job_id}/edits/{index}": {"approved": True},
}
CHANGES_NOTHING = {"POST /v1/jobs/{job_id}/downloads", "POST /v1/uploads/{upload_id}/downloads", "POST /v1/estimates"}
NO_SCOPE = {"GET /v1/whoami"}
DELETE_JOB = "DELETE /v1/jobs/{job_id}"


@dataclass
class World:
    """An API on real servers, and a team with one of everything."""

    system: System
    owner: str = ""
    stranger: str = ""
    ids: dict[str, str] = field(default_factory=lambda: {"index": "0"})
    ended: str = ""  # a job with a failure, to be retried
    samples: list[str] = field(default_factory=list)  # that wait, one to be approved and one to be rejected
    said: list[str] = field(default_factory=list)  # secrets that were sent or answered

    def ask(self, method: str, path: str, key: str | None, **values: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= values.pop("headers", {})
        answer = httpx.request(method, self.system.url + path, headers=headers, timeout=30, **values)
        assert answer.status_code < 500, (method, path, answer.text)
        if answer.status_code >= 400:
            if path.startswith("/openai/"):
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, (method, path, answer.text)
            else:
                assert answer.headers["content-type"] == "application/problem+json", (method, path, answer.text)
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        return answer

    def call(self, operation: str, key: str | None) -> httpx.Response:
        """The operation on the owners' things, asked with any key."""
        method, path = operation.split()
        return self.ask(method, self.path(path), key, **self.body(operation))

    def path(self, path: str) -> str:
        """With the owners' ids, and what a query must say."""
        return path.format(**self.ids) + ("?since=2020-01-01T00:00:00Z" if path == "/v1/report" else "")

    def body(self, operation: str) -> dict[str, Any]:
        if operation == "POST /openai/v1/files":
            return {"files": {"file": ("requests.jsonl", b"{}")}, "data": {"purpose": "batch"}}
        if operation == "POST /openai/v1/batches":
            return {"json": {**BODIES[operation], "input_file_id": self.ids["file_id"]}}
        return {"json": BODIES.get(operation)}

    def operations(self) -> list[str]:
        """Every operation that the API says it has; a body must be known for each that wants one."""
        paths = httpx.get(f"{self.system.url}/openapi.json").json()["paths"]
        found = {
            f"{m.upper()} {path}": operation for path, methods in paths.items() for m, operation in methods.items()
        }
        assert {name for name, operation in found.items() if "requestBody" in operation} == set(BODIES)
        assert {name for name in found if "{" in name} == {
            name for name in found if re.search(r"\{(job|upload|key|team|webhook|file|batch)_id\}", name)
        }
        return [name for name in found if name.split()[1] not in OPEN_PATHS]


@pytest.fixture
def world(environment: dict[str, str], tmp_path: Path) -> Iterator[World]:
    system = System(environment, tmp_path, "m", JANUS_LOG_LEVEL="debug")
    system.start_api()
    world = World(system)
    try:
        _settle(world)
        yield world
    finally:
        system.stop()


def _settle(world: World) -> None:
    """The owners' job has results, failures and events; their upload has a file."""
    engine = connect(world.system.environment["JANUS_DATABASE_URL"])
    with session_factory(engine).begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
    world.owner, world.stranger = world.system.make_key("owners"), world.system.make_key("strangers")
    world.ids["job_id"] = world.ask("POST", "/v1/jobs", world.owner, json=JOB).json()["id"]
    world.ids["upload_id"] = world.ask("POST", "/v1/uploads", world.owner).json()["id"]
    me = world.ask("GET", "/v1/whoami", world.owner).json()
    world.ids |= {"key_id": me["key_id"], "team_id": me["team"]["id"]}
    world.ids["file_id"] = world.call("POST /openai/v1/files", world.owner).json()["id"]
    world.ids["batch_id"] = world.call("POST /openai/v1/batches", world.owner).json()["id"]
    webhook = world.call("POST /v1/webhooks", world.owner).json()
    world.ids["webhook_id"] = webhook["id"]
    world.said.append(webhook["secret"].removeprefix("whsec_"))
    job_id, part = (
        world.ids["job_id"],
        Part(f"jobs/{world.ids['job_id']}/shards/1/1-1.jsonl", "0" * 64, 21, ((0, 1),), ()),
    )
    with session_factory(engine).begin() as session:
        team = teams.get_team(session, "owners")
        shards.add_shards(session, job_id, [shards.PlannedShard(0, 1, "k", 0, 0)])
        session.flush()
        session.execute(update(ShardRow).values(state=ShardState.done, num_results=1, parts=[part.as_json()]))
        session.execute(update(JobRow).values(state=JobState.running, num_items=1))
        world.ended = jobs.create_job(session, team.id, name="ended", shard_items=1, **ENDED)[0].id
        values = {"state": JobState.completed, "num_items": 1, "num_failures": 1}
        session.execute(update(JobRow).where(JobRow.id == world.ended).values(**values))
        for _ in range(2):
            world.samples.append(jobs.create_job(session, team.id, name="s", shard_items=1, sample=1, **ENDED)[0].id)
        sampled = {"state": JobState.completed, "num_items": 1, "num_results": 1}
        session.execute(update(JobRow).where(JobRow.id.in_(world.samples)).values(**sampled))
        shards.insert_failures(session, job_id, [ItemFailure(0, "0", "code", "a failure of the owners", 1)])
    store = open_store(world.system.settings)
    for key in (part.key, f"jobs/{job_id}/results.jsonl"):
        store.put(key, b"a result of the owners")
    store.close()
    engine.dispose()


def test_nobody_is_let_in(world: World) -> None:
    """One start of the API for many questions."""
    operations = world.operations()
    _without_a_key(world, operations)
    _with_too_small_a_key(world, operations)
    _with_another_teams_key(world, operations)
    _objects(world)
    _rotation_and_revocation(world)
    _every_change_is_in_the_audit(world, operations)
    _the_audit_only_grows(world)
    _odd_requests(world)
    _command_line(world)
    _too_many_requests(world)
    _the_log_has_no_secret(world)


def _without_a_key(world: World, operations: list[str]) -> None:
    wrong = world.owner[:-7] + "x" + world.owner[-6:]
    for operation in operations:
        for key in (None, "nonsense", wrong):
            assert world.call(operation, key).status_code == 401, operation
    for path in ("/v1/nothing", "/docs", "/redoc", "/v1/jobs/"):
        assert world.ask("GET", path, None).status_code == 401
        assert world.ask("GET", path, world.owner).status_code == 404
    for host in ("x/healthz?", "x/healthz#", "x@y/openapi.json?"):  # a path that only a careless reader finds in it
        assert world.ask("GET", "/v1/jobs", None, headers={"Host": host}).status_code == 401, host
    large = b'{"a": "' + b"x" * 1_000_000 + b'"'  # not even JSON, which nobody looks at
    assert world.ask("POST", "/v1/jobs", None, content=large).status_code == 401


def _with_too_small_a_key(world: World, operations: list[str]) -> None:
    """The scope that docs/api.md names opens a route, and no other does."""
    rows = dict(
        re.findall(r"^\| `([A-Z]+ /\S+)` \| (?:`([a-z:]+)`|any|) *\|", (ROOT / "docs/api.md").read_text(), re.M)
    )
    keys = {scope: world.system.make_key("owners", [scope]) for scope in SCOPES}
    spare = dict(world.ids)
    for operation in operations:
        for scope, key in keys.items():
            world.ids["key_id"] = keys["admin"].split("_")[2] if "key_id" in operation else spare["key_id"]
            if scope == rows[operation]:
                continue  # asked elsewhere
            expected = 200 if operation in NO_SCOPE else 403
            assert world.call(operation, key).status_code == expected, (operation, scope)
    world.ids = spare


def _with_another_teams_key(world: World, operations: list[str]) -> None:
    """As if there were nothing; and nothing of the owners in whatever is answered."""
    theirs = (*(world.ids[name] for name in world.ids if name != "index"), "of the owners", "owners")
    for operation in operations:
        answer = world.call(operation, world.stranger)
        if re.search(r"\{(?!key|team)\w+_id\}", operation) or operation == "POST /openai/v1/batches":
            assert answer.status_code == 404, operation
            if not operation.startswith("DELETE"):  # the others are asked about the same job
                assert world.call(operation, world.owner).status_code not in (403, 404), operation
        elif "{key_id}" in operation:
            assert answer.status_code == 403, operation
        else:
            assert answer.status_code in (200, 201, 403), operation
            assert not [name for name in theirs if name in answer.text], operation
    other = {**JOB, "kind": "caption", "input": {"upload": world.ids["upload_id"]}}
    assert world.ask("POST", "/v1/jobs", world.stranger, json=other).status_code == 404
    assert "a result of" not in world.ask("GET", f"/v1/jobs/{world.ids['job_id']}/results", world.stranger).text
    parts = world.ask("GET", f"/v1/jobs/{world.ids['job_id']}/results", world.owner).json()["parts"]
    assert httpx.get(parts[0]["url"]).text == "a result of the owners", "the owners are not shut out"


def _objects(world: World) -> None:
    """A link opens the one object it was made for, in the one way; without one nothing opens."""
    job, upload = world.ids["job_id"], world.ids["upload_id"]
    own = world.ask("POST", "/v1/jobs", world.stranger, json=JOB).json()["id"]
    own_upload = world.ask("POST", "/v1/uploads", world.stranger).json()["id"]
    for name in (
        f"../{job}/results.jsonl",
        f"../../jobs/{job}/results.jsonl",
        "/etc",
        "a//b",
        "..",
        "a/./b",
        "a\x00",
        "a\\..\\b",
    ):
        for path in (
            f"/v1/jobs/{own}/downloads",
            f"/v1/uploads/{own_upload}/urls",
            f"/v1/uploads/{own_upload}/downloads",
        ):
            assert world.ask("POST", path, world.stranger, json={"names": [name]}).status_code == 422, name
    [link] = world.ask("POST", f"/v1/jobs/{own}/downloads", world.stranger, json=NAMES).json()["urls"]
    [write] = world.ask("POST", f"/v1/uploads/{own_upload}/urls", world.stranger, json=NAMES).json()["urls"]
    world.said += [link.partition("Signature=")[2], write.partition("Signature=")[2]]
    page = world.ask("POST", f"/v1/uploads/{own_upload}/urls", world.stranger, json={"names": ["é/a.html"]})
    sent = httpx.put(page.json()["urls"][0], content=b"<script>", headers={"Content-Type": "text/html"})
    assert sent.status_code == 200
    back = world.ask("POST", f"/v1/uploads/{own_upload}/downloads", world.stranger, json={"names": ["é/a.html"]})
    assert httpx.get(back.json()["urls"][0]).headers["content-disposition"] == "attachment; filename*=UTF-8''a.html"
    assert httpx.get(link.replace(own, job)).status_code == 403
    assert httpx.get(link.replace(f"jobs/{own}", f"jobs/{own}/../{job}")).status_code == 403
    assert httpx.put(link, content=b"changed").status_code == 403
    assert httpx.put(write.replace(own_upload, upload), content=b"changed").status_code == 403
    assert httpx.get(write).status_code == 403
    plain = link.partition("?")[0].replace(own, job)
    assert httpx.get(plain).status_code == 403
    assert httpx.get(plain.partition("/jobs/")[0]).status_code == 403, "the list of the bucket"
    assert httpx.put(plain, content=b"changed").status_code == 403


def _rotation_and_revocation(world: World) -> None:
    admin = world.system.admin_key
    old = world.system.make_key("rotators")
    old_id = old.split("_")[2]
    rotated = world.ask("POST", f"/v1/keys/{old_id}/rotate", admin, json={"overlap_days": 1})
    new = rotated.json()["key"]
    world.said += [old.split("_")[3], new.split("_")[3]]
    assert rotated.status_code == 201
    assert [world.ask("GET", "/v1/jobs", key).status_code for key in (old, new)] == [200, 200], "two live keys"
    assert world.ask("POST", f"/v1/keys/{old_id}/rotate", admin, json={}).json()["code"] == "conflict"
    listed = {key["id"]: key for key in world.ask("GET", "/v1/keys?team=rotators", admin).json()["keys"]}
    assert listed[old_id]["expires_at"] is not None
    assert listed[rotated.json()["id"]]["expires_at"] is None
    assert listed[old_id]["last_used_at"] is not None
    assert not re.search(r"jns_live|sha256", json.dumps(listed)), "a key is shown once"
    ended = world.ask("POST", f"/v1/keys/{rotated.json()['id']}/rotate", admin, json={"overlap_days": 0})
    assert ended.status_code == 201
    assert world.ask("GET", "/v1/jobs", new).status_code == 401
    last = ended.json()["key"]
    world.said.append(last.split("_")[3])
    assert world.ask("DELETE", f"/v1/keys/{ended.json()['id']}", admin).status_code == 204
    assert world.ask("GET", "/v1/jobs", last).status_code == 401, "from the next request on"
    assert world.ask("DELETE", f"/v1/keys/{ended.json()['id']}", admin).status_code == 404
    for at in ("2020-01-01T00:00:00Z", "2027-01-01T00:00:00", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:59"):
        body = {"team": "rotators", "name": "n", "expires_at": at}
        assert world.ask("POST", "/v1/keys", admin, json=body).status_code == 422, at


def _every_change_is_in_the_audit(world: World, operations: list[str]) -> None:
    made = world.system.make_key("owners", list(SCOPES))
    world.said.append(made.split("_")[3])
    changing = [name for name in operations if not name.startswith("GET ") and name not in CHANGES_NOTHING]
    changing.sort(key=lambda name: (name.startswith("DELETE "), name == DELETE_JOB))  # nothing can be done after that
    for number, operation in enumerate(changing):
        of_ended = operation.endswith(("/retry", "/replay", "/edits/{index}")) or operation == DELETE_JOB
        world.ids["job_id"] = world.ended if of_ended else world.ask("POST", "/v1/jobs", made, json=JOB).json()["id"]
        if operation.endswith(("/approve", "/reject")):
            world.ids["job_id"] = world.samples.pop()
        world.ids["key_id"] = world.system.make_key("owners").split("_")[2]
        method, path = operation.split()
        path, body = world.path(path), world.body(operation)
        answer = world.ask(method, path, made, **body, headers={"X-Request-Id": f"change-{number}"})
        assert answer.is_success, (operation, answer.text)
        newest = world.ask("GET", "/v1/audit?limit=1", made).json()["audit"][0]
        assert newest["request_id"] == f"change-{number}", f"{operation} left no row in the audit"
        assert (newest["key_id"], newest["address"]) == (made.split("_")[2], "127.0.0.1")
        assert newest["team_id"].startswith("team_")
        assert newest["object_id"]
        assert "jns_live" not in json.dumps(newest)
    with world.system.client() as client:
        everything = list(client.audit())
        assert [row.id for row in everything] == sorted((row.id for row in everything), reverse=True)
        assert "host " in everything[-1].address, "the first key was made by an operator at the server"
        assert everything[-1].key_id is None
        assert {row.action for row in client.audit("strangers")} >= {"job.created", "upload.created"}
        assert not any(row.object_id == world.ids["job_id"] for row in client.audit("strangers"))


def _the_audit_only_grows(world: World) -> None:
    engine = connect(world.system.environment["JANUS_DATABASE_URL"])
    for statement in ("UPDATE audit SET action = 'nothing'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(DBAPIError, match="audit rows are not"), engine.begin() as connection:
            connection.execute(text(statement))
    with engine.begin() as connection:
        old = "INSERT INTO audit (action, object_id, address, at) VALUES ('old', 'o', 'a', now() - interval '91 days')"
        connection.execute(text(old))
    with pytest.raises(InvalidRequest):
        prune_audit(world.system.settings, days=89)
    assert prune_audit(world.system.settings, days=90) == 1
    engine.dispose()
    with world.system.client() as client:
        newest = next(client.audit())
        assert (newest.action, newest.data["rows"]) == ("audit.pruned", 1)


def _odd_requests(world: World) -> None:
    """Ids of the caller's are used where they are plain; what cannot be read is refused, and never quoted at length."""
    key = world.owner
    for given, kept in (("a.b_c-1", True), ("x" * 65, False), ("a b", False), ("<script>", False), ("a\\tb", False)):
        answer = world.ask("GET", "/v1/jobs", key, headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) is kept
    as_json = {"Content-Type": "application/json"}
    bodies = (
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"kind": "caption", "\\ud800": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"NaN",
        b"",
    )
    for body in bodies:
        answer = world.ask("POST", "/v1/jobs", key, content=body, headers=as_json)
        assert answer.status_code in (400, 422), body[:20]
    long = world.ask("POST", "/v1/jobs", key, json={**JOB, "x" * 100_000: 1})
    assert (long.status_code, len(long.content) < 5000) == (422, True)
    assert world.ask("GET", "/v1/jobs", key, content=b"x" * (8 * 2**20 + 1)).status_code == 413
    for cursor in (
        "MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSB4",
        "OTk5OS0xMi0zMVQyMzo1OTo1OS0yMzo1OSB4",
        "MjAyNi0wMS0wMSAA",
        "é",
        "=",
    ):
        assert world.ask("GET", "/v1/jobs", key, params={"cursor": cursor}).status_code in (200, 422), cursor
    origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    assert world.ask("OPTIONS", "/v1/jobs", key, headers=origin).status_code == 405
    forwarded = {"X-Forwarded-For": "6.6.6.6", "X-Request-Id": "forged"}
    assert world.ask("POST", "/v1/uploads", key, headers=forwarded).status_code == 201
    rows = world.ask("GET", "/v1/audit?limit=5", world.system.admin_key).json()["audit"]
    assert next(row for row in rows if row["request_id"] == "forged")["address"] == "127.0.0.1"


def _command_line(world: World) -> None:
    old = world.system.make_key("people").split("_")[2]
    rotated = world.system.janus("keys", "rotate", old, "--overlap-days", "3")
    assert (rotated.returncode, f"{old} ends in 3 days" in rotated.stderr) == (0, True), rotated.stderr
    assert world.ask("GET", "/v1/whoami", rotated.stdout.strip()).json()["team"]["name"] == "people"
    world.said.append(rotated.stdout.strip().split("_")[3])
    listed = world.system.janus("keys", "list", "--team", "people").stdout
    assert re.search(rf"{old}\t.*\trotated\t20\d\d-", listed), listed
    shown = world.system.janus("audit", "--limit", "1").stdout.splitlines()
    assert shown[0] == "AT\tTEAM\tKEY\tADDRESS\tACTION\tOBJECT"
    assert shown[1].endswith(f"127.0.0.1\tkey.rotated\t{old}"), "the newest first"
    assert world.system.janus("keys", "create", "--team", "people", "--name", "n", "--scopes", "all").returncode == 1


def _too_many_requests(world: World) -> None:
    """Another API on the same database, with a small limit; each process counts for itself."""
    system = world.system
    port = free_port()
    system.run("api-2", "orchestrator.api", JANUS_MAX_REQUESTS_PER_MINUTE="3", JANUS_API_PORT=str(port))
    second = f"http://127.0.0.1:{port}"
    system.wait_until(lambda: api_answers(second), "the second API answers")
    keys = [system.make_key("hasty"), system.make_key("hasty")]
    answers = [_get(second, keys[number % 2]) for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429], "two keys of a team count together"
    refused = answers[-1]
    assert refused.json()["code"] == "too_many_requests"
    assert "JANUS_MAX_REQUESTS_PER_MINUTE" in refused.json()["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert _get(second, world.stranger).status_code == 200, "another team is not held up"


def _get(url: str, key: str) -> httpx.Response:
    return httpx.get(f"{url}/v1/jobs", headers={"Authorization": f"Bearer {key}"})


def _the_log_has_no_secret(world: World) -> None:
    """Everything above was asked at log level debug; what was sent and answered is not in what was written."""
    log = world.system.log_path("api").read_text()
    actions = {json.loads(line).get("action") for line in log.splitlines()}
    assert {"job.created", "key.rotated", "key.revoked", "upload.links_to_write"} <= actions
    assert log.count('"unauthorized"') > 10
    world.said += [world.owner.split("_")[3], world.stranger.split("_")[3], world.system.admin_key.split("_")[3]]
    world.said += world.system.settings.secret_texts()
    assert len(world.said) > 10
    assert not [secret for secret in world.said if secret in log]
    assert "Signature" not in log
    assert "a prompt of the owners" not in log
