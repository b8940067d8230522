"""`janus doctor` as an operator runs it, against an API that something is wrong with."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import func, text, update

from orchestrator.admin import migrate
from orchestrator.db import workers
from orchestrator.db.session import connect, session_factory
from orchestrator.db.tables import WorkerRow
from tests.http_server import serving
from tests.system import System

pytestmark = pytest.mark.services


def examine(system: System, **variables: str) -> tuple[int, dict[str, str]]:
    """The exit status, and what is bad."""
    done = system.janus("doctor", "--json", **variables)
    found = json.loads(done.stdout)
    return done.returncode, {one["check"]: one["finding"] for one in found if not one["ok"]}


@contextmanager
def proxy_that_changes_the_host(endpoint: str) -> Iterator[str]:
    """In front of the store, as a proxy is that does not pass on the Host header."""
    target = urlsplit(endpoint).netloc

    class Forward(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(target)
            connection.request("PUT", self.path, body=body, headers={"Host": target})
            answer = connection.getresponse()
            told = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)
            connection.close()

        def log_message(self, *values: object) -> None:
            pass

    with serving(Forward) as url:
        yield url


def test_doctor_names_each_fault(environment: dict[str, str], tmp_path: Path) -> None:
    """One system for many faults: starting an API takes a second or two."""
    system = System(environment, tmp_path, "m")
    try:
        _nothing_answers(system)
        system.start_api()
        _no_worker_and_no_dispatcher(system)
        _keys(system)
        _link_that_leads_nowhere(system)
        _host_that_is_not_the_signed_one(system, environment["JANUS_S3_ENDPOINT"])
        _migrations_behind(system)
    finally:
        system.stop()


def _nothing_answers(system: System) -> None:
    status, bad = examine(system)
    assert status == 1
    assert "Is the API running" in bad["server"]
    assert "presigned URLs" not in bad, "said once"
    assert "janus dispatcher" in bad["dispatcher"], "looked at from here, with the servers' variables"
    status, bad = examine(system, JANUS_DATABASE_URL="")
    assert set(bad) == {"server", "servers"}


def _no_worker_and_no_dispatcher(system: System) -> None:
    assert set(examine(system)[1]) == {"workers", "dispatcher"}
    engine = connect(system.settings.database_url.get_secret_value())
    with session_factory(engine).begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
        workers.register_worker(session, "w", host="h", pid=1, models=["m"])
        beats_on = func.now() + text("interval '1 hour'")  # nobody is there to give the next ones
        session.execute(update(WorkerRow).values(heartbeat_at=beats_on))
    engine.dispose()
    system.run("dispatcher", "orchestrator.dispatch")
    system.wait_until(lambda: examine(system) == (0, {}), "all is well")
    told = system.janus("doctor").stdout
    assert "BAD" not in told
    assert "1 alive, serving m" in told


def _keys(system: System) -> None:
    status, bad = examine(system, JANUS_API_KEY=system.make_key("plain"))
    assert (status, bad) == (0, {}), "servers are for admins to look at"
    assert set(examine(system, JANUS_API_KEY="nonsense")[1]) == {"key", "presigned URLs", "workers"}


def _link_that_leads_nowhere(system: System) -> None:
    system.start_api(JANUS_S3_PUBLIC_ENDPOINT="http://127.0.0.1:9")
    status, bad = examine(system)
    assert (status, set(bad)) == (1, {"presigned URLs"})
    assert "http://127.0.0.1:9" in bad["presigned URLs"]
    assert "JANUS_S3_PUBLIC_ENDPOINT: set it" in bad["presigned URLs"]


def _host_that_is_not_the_signed_one(system: System, endpoint: str) -> None:
    with proxy_that_changes_the_host(endpoint) as proxy:
        system.start_api(JANUS_S3_PUBLIC_ENDPOINT=proxy)
        status, bad = examine(system)
    assert (status, set(bad)) == (1, {"presigned URLs"})
    assert "pass the Host header on unchanged" in bad["presigned URLs"]


def _migrations_behind(system: System) -> None:
    system.start_api()
    assert httpx.get(f"{system.url}/readyz").status_code == 200
    system.kill("dispatcher")
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["database_url"] = system.settings.database_url.get_secret_value()
    command.downgrade(config, "base")
    answer = httpx.get(f"{system.url}/readyz")
    assert answer.status_code == 503
    assert "orchestrator.admin migrate" in answer.json()["checks"]["schema"]
    assert answer.json()["checks"]["postgres"] == "ok"
    status, bad = examine(system)
    assert status == 1
    assert "schema lacks" in bad["server"]
    assert "orchestrator.admin migrate" in bad["migrations"]
    migrate(system.settings)
    assert httpx.get(f"{system.url}/readyz").status_code == 200


def test_metrics_of_the_api_are_for_admins(environment: dict[str, str], tmp_path: Path) -> None:
    system = System(environment, tmp_path, "m")
    try:
        system.start_api()
        assert httpx.get(f"{system.url}/metrics").status_code == 401
        for path in ("/metrics", "/v1/diagnosis"):
            headers = {"Authorization": f"Bearer {system.make_key('plain')}"}
            assert httpx.get(system.url + path, headers=headers).status_code == 403
        read: Any = httpx.get(f"{system.url}/metrics", headers={"Authorization": f"Bearer {system.admin_key}"})
        assert 'janus_http_requests_total{method="GET",route="/v1/diagnosis",status="403"} 1.0' in read.text
        assert 'janus_http_requests_total{method="GET",route="none",status="401"} 1.0' in read.text
    finally:
        system.stop()
    lines = [json.loads(line) for line in (tmp_path / "api.log").read_text().splitlines() if line.startswith("{")]
    nameless, refused = (line for line in lines if line["event"] == "request")
    assert (nameless["route"], nameless["status"]) == ("none", 401)
    assert (refused["route"], refused["status"]) == ("/v1/diagnosis", 403)
    assert refused["process"] == "api"
    assert refused["request_id"].startswith("req_")
    assert refused["team"].startswith("team_")
