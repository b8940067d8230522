"""Each fault that an operator meets is made for real, and named with what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from orchestrator.admin import migrate
from orchestrator.artifacts import S3Store, open_store
from orchestrator.db import jobs, leases, shards, teams, workers
from orchestrator.db.queueing import Message, dispatch, list_ready
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.db.watching import DISPATCHER
from orchestrator.diagnosis import diagnose, servers
from orchestrator.domain.disks import is_nearly_full
from orchestrator.domain.jobs import CaptionOptions, JobKind
from orchestrator.settings import Settings
from orchestrator.transport import open_redis
from tests.http_server import serving
from tests.system import settings_of

pytestmark = pytest.mark.services
GONE = "127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Any]:
    """A connection as a dispatcher holds it."""
    engine = connect(settings.database_url.get_secret_value(), name=DISPATCHER)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        yield connection
    engine.dispose()


def faults(settings: Settings, sessions: SessionFactory, store: S3Store, **values: Any) -> dict[str, str]:
    found = diagnose(settings, sessions, store, **values)
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding.finding for finding in found if not finding.ok}


def start_job(session: Any, model: str) -> str:
    """A running job with one shard."""
    team = teams.create_team(session, f"team of {model}")
    job, _ = jobs.create_job(
        session,
        team.id,
        name="n",
        kind=JobKind.caption,
        model=model,
        options=CaptionOptions(),
        input={"lines": []},
        shard_items=4,
        priority=0,
        idempotency_key=None,
        request_sha256="",
    )
    shards.add_shards(session, job.id, [shards.PlannedShard(0, 4, "k", 0, 0)])
    jobs.start(session, job.id, 4)
    return str(job.id)


def dispatch_one(session: Any, model: str) -> Message:
    (ready,) = list_ready(session, model, open_windows=(), limit=1)
    (message,) = dispatch(session, model, [ready.id])
    return message


def serve(session: Any, worker_id: str, model: str, host: str = "h") -> None:
    workers.register_model(session, model, family="janus-pro", revision="r")
    workers.register_worker(session, worker_id, host=host, pid=1, models=[model])


def test_healthy_system_has_no_fault(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    with sessions.begin() as session:
        serve(session, "w", "m")
        start_job(session, "m")
    assert faults(settings, sessions, store) == {}


def test_redis_that_evicts_or_keeps_nothing_on_disk(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    with open_redis(settings) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        try:
            found = faults(settings, sessions, store)
        finally:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("appendonly", "yes")
    assert set(found) == {"redis eviction", "redis on disk"}
    assert "allkeys-lru" in found["redis eviction"]
    assert "CONFIG SET maxmemory-policy noeviction" in found["redis eviction"]
    assert "appendonly yes" in found["redis on disk"]


def test_migrations_behind_missing_and_ahead(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    dispatcher.rollback()
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["database_url"] = settings.database_url.get_secret_value()
    command.downgrade(config, "-1")
    found = faults(settings, sessions, store)
    assert "lacks 1 of" in found["migrations"]
    assert "orchestrator.admin migrate" in found["migrations"]
    migrate(settings)
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    assert "Upgrade this machine" in faults(settings, sessions, store)["migrations"]


def test_servers_that_are_away(environment: dict[str, str], settings: Settings, sessions: SessionFactory) -> None:
    away = settings_of(
        environment
        | {
            "JANUS_REDIS_URL": f"redis://:p@{GONE}/0",
            "JANUS_S3_ENDPOINT": f"http://{GONE}",
            "JANUS_DATABASE_URL": f"postgresql+psycopg://janus:p@{GONE}/janus",
        }
    )
    engine, store = connect(away.database_url.get_secret_value()), open_store(away)
    found = faults(away, session_factory(engine), store)
    engine.dispose()
    store.close()
    for check, setting in (
        ("postgres", "JANUS_DATABASE_URL"),
        ("redis", "JANUS_REDIS_URL"),
        ("store", "JANUS_S3_ENDPOINT"),
    ):
        assert setting in found[check]
    assert "dispatcher" not in found, "what Postgres cannot tell is not guessed"


def test_bucket_that_is_missing(environment: dict[str, str], sessions: SessionFactory, dispatcher: Any) -> None:
    other = settings_of(environment | {"JANUS_S3_BUCKET": "never-made"})
    store = open_store(other)
    assert "migrate" in faults(other, sessions, store)["store"]
    store.close()


def test_clocks_that_disagree(settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any) -> None:
    found = faults(settings, sessions, store, clock=lambda: time.time() + 3600)
    assert set(found) == {"store clock", "database clock"}
    assert "3600 s ahead of that of Postgres" in found["database clock"]
    assert "time service" in found["store clock"]
    with server_of_another_time() as endpoint, pytest.raises(servers.Fault, match="behind that of the store"):
        servers.store_clock(endpoint, time.time)


@contextmanager
def server_of_another_time() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + 900)

        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, *values: object) -> None:
            pass

    with serving(Answer) as url:
        yield url


def test_dispatcher_that_is_away_or_hangs(
    settings: Settings, sessions: SessionFactory, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = faults(settings, sessions, store)
    assert set(found) == {"dispatcher"}
    assert "janus dispatcher" in found["dispatcher"]
    engine = connect(settings.database_url.get_secret_value(), name=DISPATCHER)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert faults(settings, sessions, store) == {}
        monkeypatch.setattr("orchestrator.diagnosis.work.DISPATCHER_SILENCE_SECONDS", 0.0)
        assert "it hangs" in faults(settings, sessions, store)["dispatcher"]
    engine.dispose()


def test_worker_that_went_silent_until_another_takes_its_place(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    with sessions.begin() as session:
        serve(session, "gone", "m", host="alpha")
        session.execute(text("UPDATE workers SET heartbeat_at = heartbeat_at - interval '5 minutes'"))
        start_job(session, "m")
    found = faults(settings, sessions, store)
    assert set(found) == {"heartbeats", "models"}
    assert "gone (m) for 3" in found["heartbeats"]
    assert "1 open jobs ask for m, which no live worker serves" in found["models"]
    assert "janus worker --model m" in found["models"]
    with sessions.begin() as session:
        serve(session, "again", "m", host="alpha")
    assert faults(settings, sessions, store) == {}


def test_shard_that_idle_workers_do_not_take(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    with sessions.begin() as session:
        serve(session, "deaf", "m")
        start_job(session, "m")
        message = dispatch_one(session, "m")
    assert faults(settings, sessions, store) == {}
    with sessions.begin() as session:
        session.execute(text("UPDATE shards SET dispatched_at = dispatched_at - interval '3 minutes'"))
    found = faults(settings, sessions, store)
    assert set(found) == {"queue"}
    assert "1 shards of m wait in Redis, the oldest for 18" in found["queue"]
    with sessions.begin() as session:
        assert leases.take_lease(session, message.shard_id, 1, worker_id="deaf", lease_seconds=60) is not None
    assert faults(settings, sessions, store) == {}


def test_results_that_cannot_be_merged(
    settings: Settings, sessions: SessionFactory, store: S3Store, dispatcher: Any
) -> None:
    with sessions.begin() as session:
        serve(session, "w", "m")
        job_id = start_job(session, "m")
        session.execute(text("UPDATE shards SET state = 'cancelled'"))
        jobs.begin_finishing(session, job_id)
        jobs.note_trouble(session, job_id, "its results cannot be merged: a part has changed")
    found = faults(settings, sessions, store)
    assert set(found) == {"merging"}
    assert job_id in found["merging"]


def test_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_nearly_full(100 * 2**30, 9 * 2**30)
    assert not is_nearly_full(100 * 2**30, 11 * 2**30)
    assert not is_nearly_full(10_000 * 2**30, 21 * 2**30)
    assert servers.disk(tmp_path / "not" / "made").startswith("enough")
    monkeypatch.setattr("orchestrator.diagnosis.servers.is_nearly_full", lambda total, free: free < total)
    with pytest.raises(servers.Fault, match="GiB are free at"):
        servers.disk(tmp_path)
