"""The morning after, through the whole system: a job's end is told, and the report says what failed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import httpx
import pytest
from standardwebhooks import Webhook

from orchestrator.domain.webhooks import new_secret
from tests.http_server import serving
from tests.system import System

pytestmark = pytest.mark.services


class Receiver(BaseHTTPRequestHandler):
    heard: ClassVar[list[tuple[dict[str, str], bytes]]] = []
    called = threading.Event()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()
        if len(self.heard) == 2:
            self.called.set()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    with serving(Receiver) as url:
        yield url


def test_a_jobs_end_is_told_and_reported(system: System, receiver: str) -> None:
    key = system.make_key("sleepers")
    as_team = {"JANUS_API_KEY": key}
    made = system.janus("webhooks", "create", receiver, **as_team)
    assert made.returncode == 0, made.stderr
    secret, own_secret = made.stdout.strip(), new_secret()
    items = [{"id": "good", "prompt": "a red circle"}, {"id": "empty", "prompt": " "}, {"id": "blank", "prompt": ""}]
    body = {
        "kind": "generate",
        "model": "tiny",
        "name": "night",
        "input": {"items": items},
        "webhook": {"url": receiver, "secret": own_secret},
    }
    headers = {"Authorization": f"Bearer {key}"}
    created = httpx.post(f"{system.url}/v1/jobs", headers=headers, json=body)
    assert created.status_code == 201, created.text
    assert own_secret not in created.text
    job_id = created.json()["id"]
    assert Receiver.called.wait(60), system.log_ends()
    told = []
    for given in (secret, own_secret):
        [one] = [said for said in (_verified(given, *heard) for heard in Receiver.heard) if said]
        told.append(one["data"])
    assert told[0] == told[1]
    assert (told[0]["id"], told[0]["failures"]) == (job_id, {"prompt_empty": 2})
    system.wait_until(
        lambda: "\tnever\t" not in system.janus("webhooks", "list", **as_team).stdout, "the list says it was delivered"
    )

    with system.client(key) as client:
        report = client.report(datetime.now(UTC) - timedelta(hours=1))
        assert (report.num_jobs, report.states) == (1, {"completed": 1})
        assert (report.items.total, report.items.results, report.items.failures) == (3, 1, 2)
        [group] = report.failures
        assert (group.code, group.count, group.example.job) == ("prompt_empty", 2, job_id)
        assert group.example.id == "empty", "the first"
        assert client.report(datetime.now(UTC) + timedelta(hours=1)).num_jobs == 0
        [webhook] = client.webhooks()
        client.delete_webhook(webhook.id)
        assert client.webhooks() == []
    shown = system.janus("report", "--since", "1h", **as_team)
    assert shown.returncode == 3, "some failed"
    assert "3 items: 1 results, 2 failures, 0 cancelled" in shown.stdout
    assert "prompt_empty\t2\t" in shown.stdout
    assert json.loads(system.janus("report", "--json", **as_team).stdout)["num_jobs"] == 1
    assert system.janus("report", "--since", "soon", **as_team).returncode == 2


def test_webhooks_that_cannot_be_are_refused(system: System) -> None:
    headers = {"Authorization": f"Bearer {system.make_key('sleepers')}"}
    for url in ("ftp://example.org", "http://169.254.169.254/", "http://u:p@example.org/", "http://2130706433/", "x"):
        refused = httpx.post(f"{system.url}/v1/webhooks", headers=headers, json={"url": url})
        assert refused.status_code == 422, url
    job = {"kind": "generate", "model": "tiny", "input": {"items": [{"prompt": "p"}]}}
    for secret in ("secret", "whsec_", "whsec_" + "A" * 90, "whsec_" + "=" * 40):
        body = job | {"webhook": {"url": "https://example.org/", "secret": secret}}
        assert httpx.post(f"{system.url}/v1/jobs", headers=headers, json=body).status_code == 422, secret


def _verified(secret: str, headers: dict[str, str], body: bytes) -> Any:
    """What was said, None where another secret signed it."""
    try:
        return Webhook(secret).verify(body, headers)
    except Exception:
        return None
