"""A fresh database and bucket for each test that asks, on servers that are started once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from orchestrator.admin import migrate
from orchestrator.artifacts import S3Store, open_store
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.settings import Settings
from tests.system import settings_of


@pytest.fixture
def environment(servers: Any) -> Iterator[dict[str, str]]:
    """Where an empty database of its own is."""
    with own_database(servers) as own:
        yield own


@contextmanager
def own_database(servers: Any) -> Iterator[dict[str, str]]:
    """Where an empty database and bucket are, which go away at the end."""
    given: dict[str, str] = servers.environment()
    url = make_url(given["JANUS_DATABASE_URL"])
    name = f"test_{secrets.token_hex(4)}"
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    bucket = name.replace("_", "-")
    own = url.set(database=name).render_as_string(hide_password=False)
    yield given | {"JANUS_DATABASE_URL": own, "JANUS_S3_BUCKET": bucket}
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


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
