"""All checks, in the order in which an operator should mend what they find."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db.session import SessionFactory
from orchestrator.diagnosis import servers, work
from orchestrator.diagnosis.findings import Finding, examine
from orchestrator.settings import Settings
from orchestrator.transport import open_redis

NOT_ASKED = "not looked at, because Postgres does not answer"


def diagnose(
    settings: Settings, sessions: SessionFactory, store: ObjectStore, *, clock: Callable[[], float] = time.time
) -> list[Finding]:
    """Every check's finding.

    Args:
        clock: this machine's, in seconds since 1970.
    """

    def asked(check: Callable[[Session], str]) -> str:
        if not postgres.ok:
            return NOT_ASKED
        with sessions() as session:
            return check(session)

    postgres = examine("postgres", lambda: servers.postgres(sessions))
    findings = [postgres]
    with open_redis(settings) as redis:
        findings += [
            examine("redis", lambda: servers.redis(redis)),
            examine("redis eviction", lambda: servers.eviction(redis)),
            examine("redis on disk", lambda: servers.append_only(redis)),
        ]
    findings += [
        examine("store", lambda: servers.store(store)),
        examine("store clock", lambda: servers.store_clock(settings.s3_endpoint, clock)),
        examine("server disk", lambda: servers.disk(settings.home)),
    ]
    in_database: list[tuple[str, Callable[[Session], str]]] = [
        ("migrations", servers.migrations),
        ("database clock", lambda session: servers.database_clock(session, clock)),
        ("dispatcher", work.dispatcher),
        ("heartbeats", work.heartbeats),
        ("models", work.models),
        ("queue", work.queue),
        ("merging", work.merging),
    ]
    for name, check in in_database:
        findings.append(examine(name, partial(asked, check)))
    return findings
