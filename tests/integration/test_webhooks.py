"""Webhooks on a real database and real receivers: told with the job's end, signed, again where nobody listened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
from sqlalchemy import select
from standardwebhooks import Webhook

from orchestrator.db import jobs, shards, teams, webhooks
from orchestrator.db.ownership import confine
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import DeliveryRow, JobRow, WebhookRow
from orchestrator.dispatch.deliverer import KEPT, Deliverer
from orchestrator.domain.jobs import Counts, GenerateOptions, JobKind, JobState
from orchestrator.domain.webhooks import MAX_TRIES, PAUSES, new_secret
from tests.http_server import serving

pytestmark = pytest.mark.services
JOB: dict[str, Any] = {
    "name": "night",
    "kind": JobKind.generate,
    "model": "m",
    "options": GenerateOptions(),
    "shard_items": 1,
}


class Receiver(BaseHTTPRequestHandler):
    """Answers with the next of `answers`, a status or seconds of silence, and with 204 after that."""

    answers: ClassVar[list[int | float]] = []
    heard: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, float):
            time.sleep(answer)
            answer = 204
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.answers, Receiver.heard = [], []
    with serving(Receiver) as url:
        yield f"{url}/hear?token=secret"


def deliverer(sessions: SessionFactory, *, seconds: float = 5, allow_private: bool = True) -> Deliverer:
    return Deliverer(sessions, seconds=seconds, allow_private=allow_private)


def make_webhook(sessions: SessionFactory, url: str, team: str = "one") -> str:
    """A team with a webhook; the webhook's secret."""
    with sessions.begin() as session:
        team_id = teams.create_team(session, team).id
        confine(session, team_id)
        return webhooks.create_webhook(session, team_id, url).secret


def end_job(sessions: SessionFactory, team: str = "one", webhook: dict[str, str] | None = None) -> str:
    """A job of two items, one of which failed; its id."""
    with sessions.begin() as session:
        team_id = teams.get_team(session, team).id
        job, _ = jobs.create_job(session, team_id, input={"lines": []}, webhook=webhook, **JOB)
        jobs.start(session, job.id, 2)
        jobs.begin_finishing(session, job.id)
        shards.insert_failures(session, job.id, [ItemFailure(1, "b", "prompt_empty", "it is empty", 1)])
        session.refresh(job)
        assert jobs.finish(session, job, Counts(2, 1, 1), "0" * 64) is JobState.completed
        return job.id


def run(sessions: SessionFactory, duty: Deliverer, later: float = 0) -> int:
    with sessions() as session:
        now = database_now(session)
    return duty.run_once(now + timedelta(seconds=later))


def outbox(sessions: SessionFactory) -> list[DeliveryRow]:
    with sessions() as session:
        return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.created_at, DeliveryRow.id)))


def test_a_jobs_end_is_told_once_signed_and_in_short(sessions: SessionFactory, receiver: str) -> None:
    secret = make_webhook(sessions, receiver)
    job_id = end_job(sessions)
    duty = deliverer(sessions)
    assert (run(sessions, duty), run(sessions, duty, 100_000)) == (1, 0)
    [(headers, body)] = Receiver.heard
    said = Webhook(secret).verify(body, headers)
    assert said["type"] == "job.completed"
    data = said["data"]
    assert (data["id"], data["state"], data["failures"]) == (job_id, "completed", {"prompt_empty": 1})
    assert data["items"] == {"total": 2, "results": 1, "failures": 1, "cancelled": 0, "reused": 0}
    assert data["path"] == f"/v1/jobs/{job_id}"
    assert len(body) < 1000
    assert headers["webhook-id"] == outbox(sessions)[0].id
    with sessions() as session:
        seen = session.scalars(select(WebhookRow)).one()
        assert (seen.delivered_at is not None, seen.trouble) == (True, None)
    duty.run_once(outbox(sessions)[0].created_at + KEPT + timedelta(minutes=1))
    assert outbox(sessions) == [], "what was delivered is forgotten"


def test_every_end_is_told_and_no_other_team_hears(sessions: SessionFactory, receiver: str) -> None:
    make_webhook(sessions, receiver)
    make_webhook(sessions, receiver + "&two", "two")
    end_job(sessions)
    with sessions.begin() as session:
        team_id = teams.get_team(session, "one").id
        broken, _ = jobs.create_job(session, team_id, input={}, **JOB)
        assert jobs.fail(session, broken.id, "its manifest is missing")
        stopped, _ = jobs.create_job(session, team_id, input={}, **JOB)
        jobs.request_cancel(session, stopped)
        jobs.begin_finishing(session, stopped.id)
        session.refresh(stopped)
        jobs.finish(session, stopped, Counts(0, 0, 0), "0" * 64)
    run(sessions, deliverer(sessions))
    told = {json.loads(body)["type"]: json.loads(body)["data"] for _, body in Receiver.heard}
    assert set(told) == {"job.completed", "job.failed", "job.cancelled"}
    assert len(Receiver.heard) == 3
    assert told["job.failed"]["state_reason"] == "its manifest is missing"


def test_a_transaction_that_does_not_commit_tells_nobody(sessions: SessionFactory, receiver: str) -> None:
    make_webhook(sessions, receiver)
    job_id = end_job(sessions)
    with sessions() as session:
        session.execute(DeliveryRow.__table__.delete())
        session.commit()
    with sessions() as session:
        webhooks.record_job_end(session, job_id)
        session.rollback()
    assert run(sessions, deliverer(sessions), 100) == 0


def test_a_receiver_that_fails_first_hears_again_with_the_same_id(sessions: SessionFactory, receiver: str) -> None:
    secret = make_webhook(sessions, receiver)
    end_job(sessions)
    Receiver.answers[:] = [500, 302, 204]
    duty, waited = deliverer(sessions), 0.0
    for pause in (0, *PAUSES[:2]):
        waited += pause + 1
        assert run(sessions, duty, waited - 2) == 0 or waited == 1
        assert run(sessions, duty, waited) == 1
    assert run(sessions, duty, 10 * waited) == 0
    assert len(Receiver.heard) == 3
    assert len({headers["webhook-id"] for headers, _ in Receiver.heard}) == 1
    for headers, body in Receiver.heard:
        Webhook(secret).verify(body, headers)


def test_it_is_given_up_after_a_day(sessions: SessionFactory, receiver: str) -> None:
    make_webhook(sessions, receiver)
    end_job(sessions)
    Receiver.answers[:] = [503] * 100
    duty, later = deliverer(sessions), 0.0
    for pause in (0, *PAUSES):
        later += pause + 1
        assert run(sessions, duty, later) == 1
    assert 20 < later / 3600 < 28
    [delivery] = outbox(sessions)
    assert (delivery.tries, delivery.ended_at is not None) == (MAX_TRIES, True)
    assert "answered 503" in (delivery.trouble or "")
    assert "token" not in (delivery.trouble or ""), "a path may hold secrets"
    assert run(sessions, duty, later + 100_000) == 0


def test_a_receiver_that_wants_no_more_hears_no_more(sessions: SessionFactory, receiver: str) -> None:
    make_webhook(sessions, receiver)
    end_job(sessions)
    Receiver.answers[:] = [410]
    duty = deliverer(sessions)
    assert (run(sessions, duty), run(sessions, duty, 1000)) == (1, 0)


def test_a_slow_receiver_costs_its_time_and_holds_up_nobody(sessions: SessionFactory, receiver: str) -> None:
    make_webhook(sessions, receiver)
    for _ in range(3):
        end_job(sessions)
    Receiver.answers[:] = [1.5]
    began = time.monotonic()
    run(sessions, deliverer(sessions, seconds=0.5))
    assert time.monotonic() - began < 1.4
    troubles = [row.trouble for row in outbox(sessions)]
    assert sorted(trouble is None for trouble in troubles) == [False, True, True]
    assert any("did not answer within 0.5 s" in (trouble or "") for trouble in troubles)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
def test_inner_addresses_are_not_called(sessions: SessionFactory, receiver: str, host: str) -> None:
    make_webhook(sessions, receiver.replace("127.0.0.1", host))
    end_job(sessions)
    run(sessions, deliverer(sessions, allow_private=False))
    [delivery] = outbox(sessions)
    assert "not public" in (delivery.trouble or "")
    assert Receiver.heard == []
    if host == "169.254.169.254":  # where clouds keep secrets: not even where inner addresses are allowed
        run(sessions, deliverer(sessions), 100)
        assert "not public" in (outbox(sessions)[0].trouble or "")


def test_a_job_may_have_a_webhook_of_its_own(sessions: SessionFactory, receiver: str) -> None:
    with sessions.begin() as session:
        teams.create_team(session, "one")
    secret = new_secret()
    job_id = end_job(sessions, webhook={"url": receiver, "secret": secret})
    run(sessions, deliverer(sessions))
    [(headers, body)] = Receiver.heard
    assert Webhook(secret).verify(body, headers)["data"]["id"] == job_id
    with sessions.begin() as session:
        retry, _ = jobs.create_retry(session, session.get_one(JobRow, job_id))
        assert retry.webhook == {"url": receiver, "secret": secret}
