"""What the dispatcher shows of Postgres and Redis."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from orchestrator.db.queueing import take_unanswered
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.dispatch.observer import Observer
from tests.fakes import ListBroker
from tests.integration.test_diagnosis import dispatch_one, serve, start_job

pytestmark = pytest.mark.services


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_open_work_is_shown_and_what_is_gone_is_not(sessions: SessionFactory) -> None:
    observer = Observer(sessions, ListBroker())
    with sessions.begin() as session:
        serve(session, "w", "m")
        start_job(session, "m")
        paused = start_job(session, "other")
        session.execute(text("UPDATE jobs SET paused_at = now() WHERE id = :id"), {"id": paused})
    observer.run_once(_now(sessions))
    assert value("janus_jobs", state="running") == value("janus_jobs", state="paused") == 1
    assert value("janus_jobs", state="accepted") == 0
    assert value("janus_shards", model="m", state="waiting") == 1
    assert value("janus_workers", model="m", state="alive") == 1
    assert value("janus_unserved_jobs", model="m") is None
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '2 minutes'"))
        session.execute(text("UPDATE shards SET state = 'cancelled'"))
    observer.run_once(_now(sessions))
    assert value("janus_shards", model="m", state="waiting") is None
    assert value("janus_workers", model="m", state="alive") is None
    assert value("janus_workers", model="m", state="silent") == 1
    assert value("janus_unserved_jobs", model="m") == 1
    assert value("janus_unserved_jobs", model="other") is None, "paused"


def test_publishing_a_message_again_does_not_make_its_shard_younger(sessions: SessionFactory) -> None:
    with sessions.begin() as session:
        start_job(session, "m")
        dispatch_one(session, "m")
    start = _now(sessions)
    with sessions.begin() as session:
        assert take_unanswered(session, "m", published_before=start + timedelta(minutes=1))
    observer = Observer(sessions, ListBroker())  # a dispatcher that was started anew
    observer.run_once(start + timedelta(seconds=700))
    assert 700 <= (value("janus_shard_ready_age_seconds", model="m") or 0) < 710
    with sessions.begin() as session:
        session.execute(text("UPDATE shards SET state = 'leased'"))
    observer.run_once(start + timedelta(seconds=710))
    assert value("janus_shard_ready_age_seconds", model="m") == 0


def _now(sessions: SessionFactory) -> datetime:
    with sessions() as session:
        return database_now(session)
