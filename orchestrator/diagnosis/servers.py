"""Faults of Postgres, Redis, the object store, clocks and disks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore, StoreError
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.diagnosis.findings import Fault
from orchestrator.domain.disks import is_nearly_full
from orchestrator.revisions import MIGRATE, find_revision, is_ahead, migrations_behind

MAX_SKEW_SECONDS = 60.0  # stores refuse signatures that are off by a quarter of an hour
Clock = Callable[[], float]


def postgres(sessions: SessionFactory) -> str:
    try:
        with sessions() as session:
            return f"version {session.execute(text('SHOW server_version')).scalar_one()} answers"
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Fault(
            f"does not answer: {reason}. Start it, or correct JANUS_DATABASE_URL. Nothing is lost meanwhile."
        ) from error


def migrations(session: Session) -> str:
    found = find_revision(session)
    if behind := migrations_behind(found):
        raise Fault(f"the database is at {found or 'nothing'} and lacks {behind} of this program's: {MIGRATE}")
    if is_ahead(found):
        raise Fault(
            f"the database is at {found}, which this program does not know: a newer version migrated it. "
            "Upgrade this machine to that version."
        )
    return f"the database is at {found}, the newest that this program knows"


def redis(client: Redis) -> str:
    info = _info(client, "server")
    version = info.get("valkey_version") or info.get("redis_version", "of an unknown version")
    return f"{info.get('server_name', 'redis')} {version} answers"


def eviction(client: Redis) -> str:
    policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Fault(
            f"its maxmemory-policy is {policy}: where memory runs short it drops messages and locks. Set "
            "`maxmemory-policy noeviction` in its configuration, and now with CONFIG SET maxmemory-policy noeviction."
        )
    return "it never drops a key (maxmemory-policy noeviction)"


def append_only(client: Redis) -> str:
    if not int(_info(client, "persistence").get("aof_enabled", 1)):
        raise Fault(
            "it keeps no append-only file: after each restart what was queued waits until it is published again. Set "
            "`appendonly yes` in its configuration, and now with CONFIG SET appendonly yes."
        )
    return "it keeps an append-only file"


def _info(client: Redis, section: str) -> dict[str, Any]:
    try:
        info: dict[str, Any] = client.info(section)
    except (RedisError, OSError) as error:
        raise Fault(
            f"does not answer: {error}. Start it, or correct JANUS_REDIS_URL; its messages are published again."
        ) from error
    return info


def store(opened: ObjectStore) -> str:
    try:
        opened.ping()
    except StoreError as error:
        raise Fault(f"{error}. Start it, or correct JANUS_S3_ENDPOINT, the keys, or JANUS_S3_BUCKET.") from error
    return "answers, and has the bucket"


def store_clock(endpoint: str, clock: Clock) -> str:
    """Compared with this machine's by the Date header of any answer."""
    try:
        date = httpx.get(endpoint, timeout=10).headers.get("date")
    except httpx.HTTPError as error:
        raise Fault(f"the store does not answer at {endpoint}: {error}") from error
    if date is None:
        return "the store does not tell its time"
    return compare(clock() - parsedate_to_datetime(date).timestamp(), "the store")


def database_clock(session: Session, clock: Clock) -> str:
    return compare(clock() - database_now(session).timestamp(), "Postgres")


def compare(ahead_seconds: float, other: str) -> str:
    """Raises Fault where the API's machine and another one do not agree about the time."""
    if abs(ahead_seconds) > MAX_SKEW_SECONDS:
        word = "ahead of" if ahead_seconds > 0 else "behind"
        raise Fault(
            f"this server's clock is {abs(ahead_seconds):.0f} s {word} that of {other}: signed links fail or expire at "
            "once. Run a time service (chrony, systemd-timesyncd) on both machines."
        )
    return f"this server and {other} agree within {MAX_SKEW_SECONDS:.0f} s"


def disk(home: Path) -> str:
    """Of the machine that is asked, where JANUS_HOME is."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    usage = shutil.disk_usage(folder)
    if is_nearly_full(usage.total, usage.free):
        raise Fault(
            f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB are free at {folder}: remove what is not "
            "needed or give it a larger disk. When it is full, databases that lie there stop."
        )
    return f"enough is free at {folder}"
