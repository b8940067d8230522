"""A database, a Redis database and a bucket of its own for each test that asks, on servers that are started once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
import redis
from minio import Minio
from minio.error import S3Error
from psycopg import sql
from sqlalchemy.engine import make_url

from orchestrator.admin import migrate
from orchestrator.artifacts import S3Store, open_store
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.settings import Settings
from tests.system import settings_of

_redis_databases = list(range(1, 16))  # of the 16 that a server has; 0 is the one that nobody was given


@pytest.fixture
def environment(servers: Any) -> Iterator[dict[str, str]]:
    """Where an empty database of its own is."""
    with own_database(servers) as own:
        yield own


@contextmanager
def own_database(servers: Any) -> Iterator[dict[str, str]]:
    """Where an empty database, an empty Redis database and an empty bucket are, which go away at the end.

    Systems that live at the same time share nothing: neither the models that are served, nor the messages in a queue.
    """
    given: dict[str, str] = servers.environment()
    name = f"test_{secrets.token_hex(4)}"
    bucket = name.replace("_", "-")
    with _own_tables(given, name) as tables, _own_redis(given) as redis_url:
        own = given | {"JANUS_DATABASE_URL": tables, "JANUS_REDIS_URL": redis_url, "JANUS_S3_BUCKET": bucket}
        try:
            yield own
        finally:  # a bucket has volumes of its own, of which the store has not many
            with suppress(S3Error):
                operators_view(own).remove_bucket(bucket)


@contextmanager
def _own_tables(given: dict[str, str], name: str) -> Iterator[str]:
    url = make_url(given["JANUS_DATABASE_URL"])
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _own_redis(given: dict[str, str]) -> Iterator[str]:
    number = _redis_databases.pop()
    url = given["JANUS_REDIS_URL"].removesuffix("/0") + f"/{number}"
    try:
        yield url
    finally:
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        _redis_databases.append(number)


def operators_view(environment: dict[str, str]) -> Minio:
    """The store as its operator sees it, every bucket of it."""
    settings = settings_of(environment)
    keys = settings.s3_access_key.get_secret_value(), settings.s3_secret_key.get_secret_value()
    return Minio(settings.s3_endpoint.removeprefix("http://"), *keys, secure=False, region=settings.s3_region)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    return settings_of(environment)


@pytest.fixture
def sessions(settings: Settings) -> Iterator[SessionFactory]:
    """Sessions on a database at head."""
    migrate(settings)
    engine = connect(settings.database_url.get_secret_value())
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture
def store(settings: Settings, sessions: SessionFactory) -> Iterator[S3Store]:
    opened = open_store(settings)
    yield opened
    opened.close()
