"""What a log may say, and what it never says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from orchestrator.domain.keys import new_key
from orchestrator.telemetry import configure_logging, get_logger
from tests.system import settings_of

KEY = new_key()
LINK = "http://s3/janus/jobs/x?X-Amz-Credential=janus%2F20261126&X-Amz-Signature=" + "0123456789abcdef" * 4
SETTINGS = settings_of(
    {
        "JANUS_DATABASE_URL": "postgresql+psycopg://janus:pw-of-postgres@host/janus",
        "JANUS_REDIS_URL": "redis://:pw-of-redis@host:1/0",
        "JANUS_S3_ENDPOINT": "http://s3:1",
        "JANUS_S3_ACCESS_KEY": "janus",
        "JANUS_S3_SECRET_KEY": "pw-of-store",
    }
)
SECRETS = (KEY.text[-30:], "0123456789abcdef", "pw-of-postgres", "pw-of-redis", "pw-of-store", "pw-of-nobody")


@contextmanager
def logs_of_a_server() -> Iterator[None]:
    """The real configuration, and afterwards the one that was there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("debug", hidden=SETTINGS.secret_texts())
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def test_keys_links_and_passwords_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[Any] = [
        KEY.text,
        {"Authorization": f"Bearer {KEY.text}"},
        LINK,
        [(b"authorization", f"Bearer {KEY.text}".encode())],
        "redis://:pw-of-nobody@elsewhere:6379/0",
        "the database pw-of-postgres, the broker pw-of-redis, the store pw-of-store",
        SETTINGS,
        SETTINGS.database_url.get_secret_value(),
    ]
    with logs_of_a_server():
        for value in said:
            get_logger(bound=value).warning("ours", value=value)
            logging.getLogger("urllib3").debug("theirs: %s", value)
            try:
                raise ValueError(value)
            except ValueError as error:
                get_logger().error("failed", exc_info=error)
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 3 * len(said)
    assert not [secret for secret in SECRETS if secret in text]
    assert KEY.id in text, "which key it was may be told"


def test_other_words_stay(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_of_a_server():
        get_logger().info(
            "job janus done", url="http://127.0.0.1:8080/v1/jobs?cursor=a", at="2026-11-26T15:00:00+00:00"
        )
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["url"]) == ("job janus done", "http://127.0.0.1:8080/v1/jobs?cursor=a")
    assert "***" not in str(line)
