"""The dashboard's pages on a real API: who is let in, what forms may do, and that nothing is shown as it was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest
import time_machine
from fastapi.routing import APIRoute
from sqlalchemy import select, text, update
from starlette.requests import Request

from orchestrator.artifacts import open_store
from orchestrator.dashboard.app import PAGES
from orchestrator.dashboard.forms import read_form
from orchestrator.dashboard.sessions import COOKIE, MAX_AGE_SECONDS, new_session, read_session, signer
from orchestrator.db import jobs, shards, teams, workers
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.db.shards import ItemFailure, PlannedShard
from orchestrator.db.tables import AuditRow, EditRow, JobRow, ShardRow, Table
from orchestrator.domain.image_refs import ImageRef
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import CaptionOptions, JobKind, JobState
from orchestrator.domain.shards import Part, ShardState
from tests.database import own_database
from tests.system import System

pytestmark = pytest.mark.services
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40
ROUTES = [route for router in PAGES for route in router.routes if isinstance(route, APIRoute)]
OPEN = {"/sign-in", "/static/{name}"}


@dataclass
class Site:
    """An API, a team with a finished job whose every word is hostile, and a stranger."""

    system: System
    sessions: SessionFactory
    address: str
    owner: str = ""
    stranger: str = ""
    job_id: str = ""
    values: dict[str, str] = field(default_factory=dict)
    browsers: list[httpx.Client] = field(default_factory=list)

    def browser(self, key: str | None = None) -> httpx.Client:
        """A browser that has signed in with this key."""
        headers = {"Accept": "text/html", "X-Forwarded-For": self.address}
        client = httpx.Client(base_url=self.system.url, headers=headers, timeout=30)
        self.browsers.append(client)
        if key is not None:
            answer = post(client, "/sign-in", {"key": key}, page="/sign-in")
            assert answer.status_code == 303, answer.text
        return client

    def path(self, route: APIRoute) -> str:
        return route.path.format(**self.values)


def token_on(client: httpx.Client, page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', client.get(page).text)
    assert found is not None, page
    return found.group(1)


def post(client: httpx.Client, path: str, data: dict[str, Any], *, page: str = "/", **values: Any) -> httpx.Response:
    """Send a form with the token of the page that it is on."""
    return client.post(path, data={"form_token": token_on(client, page)} | data, **values)


@pytest.fixture(scope="module")
def api(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, SessionFactory]]:
    with own_database(servers) as environment:
        logs = tmp_path_factory.mktemp("api")
        settings = {"JANUS_INPUT_BUCKETS": "pictures/", "JANUS_TRUSTED_PROXIES": "127.0.0.1"}
        system = System(environment, logs, "m", JANUS_LOG_LEVEL="debug", **settings)
        engine = connect(environment["JANUS_DATABASE_URL"])
        try:
            system.start_api()
            yield system, session_factory(engine)
        finally:
            engine.dispose()
            system.stop()


_addresses = count(1)


@pytest.fixture
def site(api: tuple[System, SessionFactory]) -> Iterator[Site]:
    """Its own rows in empty tables, but for the audit, which only grows; and an address of its own, as tries to sign in
    are counted by address."""
    system, sessions = api
    with sessions.begin() as session:
        names = ", ".join(table.name for table in Table.metadata.sorted_tables if table.name != AuditRow.__tablename__)
        session.execute(text(f"TRUNCATE {names} CASCADE"))
    system.admin_key = system.make_admin_key()
    made = Site(system, sessions, f"192.0.2.{next(_addresses)}")
    made.owner, made.stranger = system.make_key("owners"), system.make_key("strangers")
    try:
        _settle(made)
        yield made
    finally:
        for browser in made.browsers:
            browser.close()


def _settle(site: Site) -> None:
    """Three items in two shards: a hostile caption, a failure, and one that another part holds."""
    store = open_store(site.system.settings)
    with site.sessions.begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="sha256:1541536e4a82620b")
        workers.register_worker(session, "w", host="h", pid=1, models=["m"])
        team = teams.get_team(session, "owners")
        options = CaptionOptions(prompt=EVIL)
        job, _ = jobs.create_job(
            session, team.id, name=EVIL, kind=JobKind.caption, model="m", options=options, input={}, shard_items=2
        )
        bundle, whole = f"uploads/{team.id}/upl_1/bundle", f"uploads/{team.id}/upl_1/c.png"
        items = [
            Item(0, EVIL, (ImageRef(bundle, 10, len(PNG)),)),
            Item(1, "b.png", (ImageRef(bundle, 0, 10),)),
            Item(2, "c.png", (ImageRef(whole),)),
        ]
        store.put(bundle, b"<!doctype " + PNG)
        store.put(whole, PNG)
        store.put(f"jobs/{job.id}/items/0.jsonl", b"".join(item.as_line().encode() + b"\n" for item in items))
        lines = [
            {"index": 0, "id": EVIL, "caption": EVIL, "num_tokens": 3, "finish_reason": "stop", "seed": 0},
            {"index": 1, "id": "b.png", "failure": {"code": "image_unreadable", "message": EVIL, "attempts": 2}},
            {"index": 2, "id": "c.png", "caption": "a kettle", "num_tokens": 2, "finish_reason": "stop", "seed": 2},
        ]
        for number, (first, some) in enumerate(((0, lines[:2]), (2, lines[2:]))):
            key = f"jobs/{job.id}/shards/{number}/1-0.jsonl"
            data = b"".join(json.dumps(line).encode() + b"\n" for line in some)
            store.put(key, data)
            part = Part(key, "0" * 64, len(data), ((first, first + 1),), ((1, 2),) if number == 0 else ())
            planned = PlannedShard(first, len(some), f"jobs/{job.id}/items/0.jsonl", 0, 2**20)
            shards.add_shards(session, job.id, [planned])
            session.flush()
            values = {
                "state": ShardState.done,
                "num_results": 1,
                "num_failures": len(some) - 1,
                "parts": [part.as_json()],
                "attempt": 1,
            }
            session.execute(update(ShardRow).where(ShardRow.first_index == first).values(**values))
        shards.insert_failures(session, job.id, [ItemFailure(1, "b.png", "image_unreadable", EVIL, 2)])
        ended = {
            "state": JobState.completed,
            "num_items": 3,
            "num_results": 2,
            "num_failures": 1,
            "manifest_sha256": "0",
        }
        session.execute(update(JobRow).where(JobRow.id == job.id).values(**ended))
        site.job_id = job.id
        [_, owner] = site.stranger.split("_")[2], site.owner.split("_")[2]
        site.values = {"job_id": job.id, "index": "0", "team_id": team.id, "key_id": owner, "name": "dashboard.css",
                       "kind": "caption", "token": "x", "upload_id": "upl_1"}  # fmt: skip
    store.close()


def test_nobody_looks_without_a_session(site: Site) -> None:
    client = site.browser()
    for route in ROUTES:
        if route.path in OPEN:
            continue
        for method in route.methods or ():
            answer = client.request(method, site.path(route))
            assert answer.status_code == 303, (method, route.path, answer.text)
            assert answer.headers["location"].startswith("/sign-in"), route.path
    assert client.get("/jobs/x?note=a").headers["location"] == "/sign-in?next=/jobs/x%3Fnote%3Da"
    assert client.get("/no/such/page").status_code == 303
    assert client.get("/v1/jobs").status_code == 401, "the API takes no cookie"


def test_a_jobs_address_cut_short_leads_to_the_jobs(site: Site) -> None:
    answer = site.browser(site.owner).get("/jobs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_session_opens_nothing_of_the_api(site: Site) -> None:
    client = site.browser(site.owner)
    assert client.get("/").status_code == 200
    assert client.get("/v1/jobs").status_code == 401
    assert client.get("/metrics").status_code == 401


def test_the_cookie_holds_no_key_and_is_for_this_site_alone(site: Site) -> None:
    client = site.browser()
    answer = post(client, "/sign-in", {"key": site.owner, "next": "https://elsewhere.example/"}, page="/sign-in")
    cookie = answer.headers["set-cookie"]
    assert answer.headers["location"] == "/", "not to another site"
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert site.owner.split("_")[3] not in cookie
    for forged in (client.cookies[COOKIE][:-2] + "xx", "nonsense", ""):
        answer = httpx.get(site.system.url, headers={"Cookie": f"{COOKIE}={forged}"})
        assert answer.status_code == 303
    other_purpose = signer(site.system.settings, "picture").dumps({"key": site.owner.split("_")[2], "form": "x"})
    assert httpx.get(site.system.url, headers={"Cookie": f"{COOKIE}={other_purpose}"}).status_code == 303


def test_a_session_ends(site: Site) -> None:
    settings, session = site.system.settings, new_session("k")
    value = signer(settings, "session").dumps({"key": session.key_id, "form": session.form_token})
    request = Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={value}".encode())]})
    assert read_session(request, settings) == session
    with time_machine.travel(timedelta(seconds=MAX_AGE_SECONDS + 60) + _now(), tick=False):
        assert read_session(request, settings) is None
    client = site.browser(site.owner)
    assert post(client, "/sign-out", {}).headers["location"] == "/sign-in"
    assert client.get("/").status_code == 303


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_revocation_acts_at_once(site: Site) -> None:
    client = site.browser(site.owner)
    assert client.get("/").status_code == 200
    with site.sessions.begin() as session:
        teams.revoke_key(session, site.owner.split("_")[2])
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_tries_to_sign_in_are_few(site: Site) -> None:
    client = site.browser()
    token = token_on(client, "/sign-in")
    wrong = site.owner[:-8] + "x" * 2 + site.owner[-6:]
    answers = [client.post("/sign-in", data={"form_token": token, "key": wrong}) for _ in range(12)]
    assert [answer.status_code for answer in answers[:2]] == [401, 403], (
        "each try shows a new form with a token of its own"
    )
    tried = [post(client, "/sign-in", {"key": wrong}, page="/sign-in") for _ in range(12)]
    assert tried[-1].status_code == 429
    assert int(tried[-1].headers["retry-after"]) >= 1
    assert wrong not in site.system.log_path("api").read_text()


def test_every_form_wants_the_token_of_its_session(site: Site) -> None:
    assert all(_asks_for_token(route) for route in ROUTES if "POST" in (route.methods or ()))
    client, other = site.browser(site.owner), site.browser(site.stranger)
    stolen = token_on(other, "/")
    for route in ROUTES:
        if "POST" not in (route.methods or ()):
            continue
        for data in ({}, {"form_token": ""}, {"form_token": stolen}, {"form_token": "é"}):
            answer = client.post(site.path(route), data=data)
            assert answer.status_code == 403, (route.path, answer.status_code)
    good = {"form_token": token_on(client, "/")}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://x.example"}):
        answer = client.post("/sign-out", data=good, headers=headers)
        assert (answer.status_code, "another site" in answer.text) == (403, True), headers
    assert client.get("/").status_code == 200, "nothing was done"
    with site.sessions() as session:
        assert session.scalars(select(JobRow.id)).all() == [site.job_id]


def _asks_for_token(route: APIRoute) -> bool:
    return any(dependency.call is read_form for dependency in route.dependant.dependencies)


def test_another_teams_things_are_not_there(site: Site) -> None:
    owner, stranger = site.browser(site.owner), site.browser(site.stranger)
    for route in ROUTES:
        if "{job_id}" not in route.path or "GET" not in (route.methods or ()) or route.path.endswith("/items"):
            continue
        if not route.path.startswith("/live"):
            assert owner.get(site.path(route)).status_code == 200, route.path
            answer = stranger.get(site.path(route))
            assert answer.status_code == 404, route.path
            nothing = stranger.get(site.path(route).replace(site.job_id, "job_nothing")).text
            assert _plain(answer.text.replace(site.job_id, "job_nothing")) == _plain(nothing), route.path
    assert "event: gone" in stranger.get(f"/live/jobs/{site.job_id}").text
    for action in ("pause", "resume", "cancel", "retry", "approve", "reject", "items/0", "items/0/replay"):
        assert post(stranger, f"/jobs/{site.job_id}/{action}", {"action": "approve"}).status_code == 404
    assert site.job_id not in stranger.get("/").text
    picture = re.search(r"/pictures/[\w.-]+", owner.get(f"/jobs/{site.job_id}/items/0").text)
    assert picture is not None
    assert owner.get(picture.group()).content == PNG
    assert stranger.get(picture.group()).status_code == 404, "a link to a picture is for its team"


def _plain(page: str) -> str:
    return re.sub(r"req_\w+", "", page)


def test_scopes_are_those_of_the_api(site: Site) -> None:
    reader = site.browser(site.system.make_key("owners", ["jobs:read"]))
    page = reader.get(f"/jobs/{site.job_id}").text
    assert "Retry" not in page
    assert reader.get("/new").status_code == 403
    actions = ("retry", "approve", "reject", "items/0", "items/0/replay")
    for path in (*(f"/jobs/{site.job_id}/{action}" for action in actions), "/new/caption", "/new/uploads/start"):
        assert post(reader, path, {}).status_code == 403, path
    for path in ("/teams", f"/teams/{site.values['team_id']}"):
        assert reader.get(path).status_code == 403
    for path in ("/teams", f"/keys/{site.values['key_id']}/revoke", f"/keys/{site.values['key_id']}/rotate"):
        assert post(reader, path, {"name": "x"}).status_code == 403
    admin = site.browser(site.system.make_key("others", ["admin"]))
    assert admin.get("/").headers["location"] == "/teams"
    assert admin.get(f"/jobs/{site.job_id}").status_code == 403


def test_nothing_is_shown_as_it_was_sent(site: Site) -> None:
    client, job = site.browser(site.owner), f"/jobs/{site.job_id}"
    for path in ("/", job, f"{job}/gallery", f"{job}/failures", f"{job}/items/0", f"{job}/items/1"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert "&lt;script&gt;alert" in answer.text, path
        assert "<script>alert" not in answer.text, path
        assert "onerror=alert(1)>" not in answer.text, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"\sstyle=|\son\w+=\"", answer.text.replace("onerror=alert(1)", "")), path
        assert re.findall(r"<script(?! src=\"/static/)", answer.text) == []
    assert client.get(f"{job}/items/9").status_code == 404
    assert client.get(f"{job}?note={EVIL}").text.count("<script>alert") == 0
    bundle = re.search(r"/pictures/[\w.-]+", client.get(f"{job}/items/1").text)
    assert bundle is not None
    assert client.get(bundle.group()).status_code == 422, "ten bytes of HTML are no picture"
    picture = re.search(r"/pictures/[\w.-]+", client.get(f"{job}/items/0").text)
    assert picture is not None
    shown = client.get(picture.group())
    assert (shown.headers["content-type"], shown.headers["x-content-type-options"]) == ("image/png", "nosniff")


def test_captions_are_edited_and_approved(site: Site) -> None:
    client, item = site.browser(site.owner), f"/jobs/{site.job_id}/items/2"
    form = {"original": "a kettle", "caption": "a red kettle\r\non a stove", "action": "approve"}
    assert post(client, item, form, page=item).headers["location"].endswith("saved=true")
    page = client.get(item).text
    assert "a red kettle" in page
    assert "The model said: <q>a kettle</q>" in page
    assert "approved" in client.get(f"/jobs/{site.job_id}/gallery").text
    headers = {"Authorization": f"Bearer {site.owner}"}
    edits = httpx.get(f"{site.system.url}/v1/jobs/{site.job_id}/edits", headers=headers).json()["edits"]
    assert [(edit["index"], edit["caption"]) for edit in edits] == [(2, "a red kettle\r\non a stove")]
    assert edits[0]["approved_at"] is not None
    assert edits[0]["edited_by"] == site.owner.split("_")[2]
    same = {"original": "a kettle", "caption": "a kettle", "action": "save"}
    post(client, item, same, page=item)
    with site.sessions() as session:
        assert session.scalars(select(EditRow)).all() == [], "the model's own caption is no edit"
        actions = session.scalars(select(AuditRow.action).where(AuditRow.object_id == site.job_id)).all()
    assert actions == ["edit.saved", "edit.saved"]


def test_jobs_are_made_by_form(site: Site) -> None:
    client = site.browser(site.owner)
    token = token_on(client, "/new?kind=generate")
    form = {
        "form_token": token,
        "model": "m",
        "prompts": " a cat \n\n a dog\r\n",
        "images": "2",
        "once": "1",
        "name": "Pets",
    }
    answers = [client.post("/new/generate", data=form) for _ in range(2)]
    assert answers[0].status_code == 303
    assert answers[0].headers["location"] == answers[1].headers["location"], "sent twice is made once"
    preview = client.post("/new/preview", data=form).text
    assert preview.count("<li>a ") == 2
    for change, says in (
        ({"prompts": " "}, "There is no prompt"),
        ({"images": "two"}, "whole number"),
        ({"images": "65"}, "must be 1 to 64"),
        ({"model": "x"}, "is not known here"),
        ({"model": EVIL}, "String should match"),
    ):
        answer = client.post("/new/generate", data=form | {"once": "2"} | change)
        assert (answer.status_code, says in answer.text) == (422, True), (change, answer.text)
        assert 'value="Pets"' in answer.text, "what was written stays"
    data = {"form_token": token, "model": "m"}
    files = [("pictures", (name, PNG)) for name in ("../../a b.PNG", "x/a b.png", "é.jpg")]
    made = client.post("/new/caption", data=data, files=files)
    assert made.status_code == 303, made.text
    store = open_store(site.system.settings)
    with site.sessions() as session:
        row = session.scalars(select(JobRow).order_by(JobRow.created_at.desc()).limit(1)).one()
    prefix = f"uploads/{row.team_id}/{row.upload_id}/"
    assert [stored.key.removeprefix(prefix) for stored in store.list(prefix)] == ["a b-2.png", "a b.png", "é.jpg"]
    store.close()
    night = {"window": "Mon-Fri 22:00-06:00  Europe/Berlin", "deadline": "2033-01-31T07:00", "prefix": "A photo of",
             "avoid": " image of\r\n\nblurry "}  # fmt: skip
    made = client.post("/new/caption", data=data | night, files=files)
    assert made.status_code == 303, made.text
    with site.sessions() as session:
        row = jobs.get_job(session, made.headers["location"].split("/")[2].partition("?")[0])
    assert row.run_window == "Mon-Fri 22:00-06:00 Europe/Berlin"
    assert row.deadline_at == datetime(2033, 1, 31, 7, tzinfo=UTC)
    assert (row.options["prefix"], row.options["avoid"]) == ("A photo of", ["image of", "blurry"])
    for change, says in (
        ({"window": "at night"}, "is not of its form"),
        ({"deadline": "soon"}, "must be a time"),
        ({"deadline": "2001-01-01T07:00"}, "must be in the future"),
    ):
        answer = client.post("/new/caption", data=data | night | change, files=files)
        assert (answer.status_code, says in answer.text) == (422, True), (change, answer.text)
        assert 'value="A photo of"' in answer.text, "what was written stays"
        assert "blurry" in answer.text
    refused = client.post("/new/caption", data=data, files=[("pictures", ("a.exe", b"MZ"))])
    assert (refused.status_code, "does not end like a picture" in refused.text) == (422, True)
    assert "There is no picture" in client.post("/new/caption", data=data).text
    theirs = client.post("/new/caption", data=data | {"upload": "upl_none"})
    assert theirs.status_code == 404


def test_admins_keep_teams_and_keys(site: Site) -> None:
    client = site.browser(site.system.admin_key)
    made = post(client, "/teams", {"name": EVIL}, page="/teams")
    team = made.headers["location"]
    assert post(client, "/teams", {"name": EVIL}, page="/teams").status_code == 409
    assert "not measured" in client.get(team).text
    limits = {"in_flight": "640", "per_day": "", "stored_bytes": "1.5 TB"}
    assert post(client, f"{team}/quotas", limits, page=team).status_code == 303
    page = client.get(f"{team}?note=quota").text
    assert all(text in page for text in ('value="640"', 'value="1500000000000"', "Set. What was begun is finished."))
    for wrong, says in (("0", "The least quota is 1"), ("many", "is no number of bytes")):
        answer = post(client, f"{team}/quotas", limits | {"per_day": wrong}, page=team)
        assert (answer.status_code, says in answer.text) == (422, True), answer.text
    shown = post(client, f"{team}/keys", {"name": "ci", "scopes": ["jobs:read"], "days": "30"}, page=team).text
    found = re.search(r"jns_live_\w+", shown)
    assert found is not None
    key = found.group()
    assert key not in client.get(team).text, "it is shown once"
    jobs = " ".join(site.browser(key).get("/").text.split())
    assert "Your team's quota: 0 of 640 in flight, – of 1.50 TB stored.</p>" in jobs
    assert "Your team's quota" not in site.browser(site.owner).get("/").text
    assert httpx.get(f"{site.system.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    key_id = key.split("_")[2]
    rotated = re.search(r"jns_live_\w+", post(client, f"/keys/{key_id}/rotate", {"overlap_days": "0"}, page=team).text)
    assert rotated is not None
    assert httpx.get(f"{site.system.url}/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 401
    new_id = rotated.group().split("_")[2]
    post(client, f"/keys/{new_id}/revoke", {"team": team.rpartition("/")[2]}, page=team)
    answer = httpx.get(f"{site.system.url}/v1/jobs", headers={"Authorization": f"Bearer {rotated.group()}"})
    assert answer.status_code == 401
    assert post(client, f"{team}/keys", {"name": "", "scopes": ["jobs:read"]}, page=team).status_code == 422
    assert post(client, f"{team}/keys", {"name": "x", "scopes": ["root"]}, page=team).status_code == 422
    log = site.system.log_path("api").read_text()
    assert not [secret for secret in (key, rotated.group()) if secret.split("_")[3] in log]


def test_errors_are_pages_for_browsers(site: Site) -> None:
    client = site.browser(site.owner)
    for path, status in (
        ("/jobs/job_x", 404),
        ("/nothing", 404),
        ("/?cursor=nonsense", 422),
        ("/?state=odd", 422),
        ("/new?kind=x", 422),
    ):
        answer = client.get(path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-request-id"] in answer.text
    assert client.get("/static/nothing.css").status_code == 404
    assert post(client, f"/jobs/{site.job_id}/pause", {}).status_code == 409
    style = re.search(r'href="(/static/dashboard.css\?v=\w+)"', client.get("/").text)
    assert style is not None
    assert "immutable" in client.get(style.group(1)).headers["cache-control"]
    assert client.get("/").headers["cache-control"] == "no-store"
    came = httpx.get(site.system.url, headers={"Sec-Fetch-Site": "cross-site"})
    assert (came.status_code, "refresh" in came.text) == (200, True), "from another site's link, once more from here"


def test_pages_follow_live(site: Site) -> None:
    client = site.browser(site.owner)
    with site.sessions.begin() as session:
        values = {"state": JobState.running, "num_results": 0, "num_failures": 0}
        session.execute(update(JobRow).where(JobRow.id == site.job_id).values(**values))
    with client.stream("GET", f"/live/jobs/{site.job_id}") as stream:
        lines = stream.iter_lines()
        first = _next_pieces(lines)
        assert {"job-state", "job-progress", "job-sheet"} <= set(first)
        assert "&lt;script&gt;" in first["job-sheet"]
        with site.sessions.begin() as session:
            session.execute(update(JobRow).values(num_items=30))
        assert "of 30 items" in _next_pieces(lines)["job-progress"]
        with site.sessions.begin() as session:
            teams.revoke_key(session, site.owner.split("_")[2])
        assert "event: gone" in "\n".join(lines)


def _next_pieces(lines: Iterator[str]) -> dict[str, str]:
    for line in lines:
        if line.startswith("data: "):
            pieces: dict[str, str] = json.loads(line.removeprefix("data: "))
            return pieces
    raise AssertionError("the stream ended")


def test_a_sample_is_decided_on_with_forms_alone(site: Site) -> None:
    client, page = site.browser(site.owner), f"/jobs/{site.job_id}"
    assert 'id="approve"' not in client.get(page).text, "it is no sample"
    assert post(client, f"{page}/approve", {}, page=page).status_code == 409
    with site.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == site.job_id).values(sample=3, sample_total=40))
    text = client.get(page).text
    assert "A sample: 3 items of 40" in text
    assert all(f'id="{button}"' in text for button in ("approve", "again", "reject"))
    assert "a kettle" in text, "its results are there to be looked at"
    assert "to be approved" in client.get("/").text
    reader = site.browser(site.system.make_key("owners", ["jobs:read"]))
    assert 'id="approve"' not in reader.get(page).text
    again = post(client, f"{page}/approve", {"prompt": "What is it?", "action": "again"}, page=page)
    assert again.headers["location"].endswith("?note=again")
    with site.sessions.begin() as session:
        made = session.scalars(select(JobRow).where(JobRow.id != site.job_id)).one()
        assert (made.options["prompt"], made.sample, made.sampled_by) == ("What is it?", 3, site.job_id)
        assert made.id in again.headers["location"]
        ended = {"state": JobState.completed, "num_items": 3, "num_results": 3}
        session.execute(update(JobRow).where(JobRow.id == made.id).values(ended))
    assert f'href="/jobs/{made.id}"' in client.get(page).text
    assert post(client, f"/jobs/{made.id}/reject", {}, page=f"/jobs/{made.id}").status_code == 303
    assert "Rejected." in client.get(f"/jobs/{made.id}").text
    assert post(client, f"/jobs/{made.id}/approve", {"prompt": "x"}, page="/").status_code == 409


def test_a_form_approves_the_whole_as_it_is(site: Site) -> None:
    client, page = site.browser(site.owner), f"/jobs/{site.job_id}"
    with site.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == site.job_id).values(sample=3, sample_total=40))
    sent = [post(client, f"{page}/approve", {"prompt": EVIL, "action": "approve"}, page=page) for _ in range(2)]
    assert len({answer.headers["location"] for answer in sent}) == 1
    with site.sessions() as session:
        made = session.scalars(select(JobRow).where(JobRow.id != site.job_id)).one()
        assert (made.options["prompt"], made.sample, made.name) == (EVIL, None, EVIL)


def test_an_item_is_made_again_and_compared(site: Site) -> None:
    client, item = site.browser(site.owner), f"/jobs/{site.job_id}/items/2"
    once = re.search(r'name="once" value="(\w+)"', client.get(item).text)
    assert once is not None
    sent = [post(client, f"{item}/replay", {"once": once.group(1)}, page=item) for _ in range(2)]
    assert len({answer.headers["location"] for answer in sent}) == 1, "a form that is sent twice makes one job"
    store = open_store(site.system.settings)
    with site.sessions.begin() as session:
        made = session.scalars(select(JobRow).where(JobRow.id != site.job_id)).one()
        line = {"index": 0, "id": "c.png", "caption": EVIL, "num_tokens": 2, "finish_reason": "stop", "seed": 2}
        data = json.dumps(line).encode() + b"\n"
        key = f"jobs/{made.id}/shards/9/1-0.jsonl"
        store.put(key, data)
        shards.add_shards(session, made.id, [PlannedShard(0, 1, f"jobs/{site.job_id}/items/0.jsonl", 0, 2**20)])
        session.flush()
        part = Part(key, "0" * 64, len(data), ((0, 1),), ())
        values = {"state": ShardState.done, "num_results": 1, "parts": [part.as_json()], "attempt": 1}
        session.execute(update(ShardRow).where(ShardRow.job_id == made.id).values(**values))
        ended = {"state": JobState.completed, "num_items": 1, "num_results": 1}
        session.execute(update(JobRow).where(JobRow.id == made.id).values(**ended))
        assert (made.retry_of, made.replay_index, made.reuse) == (site.job_id, 2, False)
        made_id = made.id
    store.close()
    assert f'href="{item}"' in client.get(f"/jobs/{made_id}").text
    compared = client.get(f"/jobs/{made_id}/items/0").text
    assert "Made again: different" in compared
    assert "caption was &#39;a kettle&#39; and is" in compared
    assert "<script>alert" not in compared


def test_a_picture_of_an_opened_bucket_is_shown_from_there_and_not_from_ours(site: Site) -> None:
    store = open_store(site.system.settings)

    def put_items(bucket: str) -> None:
        refs = ImageRef("a.png", bucket=bucket), ImageRef("b.tar", 512, len(PNG), bucket=bucket)
        lines = [Item(index, str(index), (ref,)).as_line() + "\n" for index, ref in enumerate(refs)]
        store.put(f"jobs/{site.job_id}/items/0.jsonl", "".join(lines).encode())

    put_items("pictures")
    store.put("b.tar", b"0" * 512 + b"\x89PNG\r\n\x1a\nsomebody else's, in our own bucket")
    client = site.browser(site.owner)
    source = re.search(r'<figure><a href="([^"]+)"', client.get(f"/jobs/{site.job_id}/items/0").text)
    assert source is not None
    assert httpx.URL(source.group(1)).path == "/pictures/a.png"
    token = re.search(r"/pictures/[\w.-]+", client.get(f"/jobs/{site.job_id}/items/1").text)
    assert token is not None
    assert b"somebody" not in client.get(token.group()).content

    put_items("closed")  # as if the operator had taken the folder out of JANUS_INPUT_BUCKETS since
    store.close()
    for index in (0, 1):
        page = client.get(f"/jobs/{site.job_id}/items/{index}").text
        assert "not open to this team any more" in page
        assert "<figure><a" not in page
