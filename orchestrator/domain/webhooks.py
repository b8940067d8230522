"""Webhooks: what is said at a job's end, in the form of Standard Webhooks, and how often it is tried."""

from __future__ import annotations

import base64
import json
import re
import secrets
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.urls import IpAddress, UrlRefused, check_url, is_public

MAX_WEBHOOKS = 10  # of a team
FORM_OF_SECRETS = r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$"
# After a try that failed, in seconds: the last one is about a day after the first.
PAUSES = (5, 60, 300, 1800, 7200, 18_000, 28_800, 28_800)
MAX_TRIES = len(PAUSES) + 1


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Raises InvalidRequest."""
    try:
        num_bytes = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except ValueError:
        num_bytes = 0
    if re.fullmatch(FORM_OF_SECRETS, secret) is None or not 24 <= num_bytes <= 64:
        raise InvalidRequest("a webhook's secret is `whsec_` and 24 to 64 bytes in base64")


def check_webhook(url: str, *, allow_private: bool) -> None:
    """That a URL may be called, as far as it says itself; where its name leads is looked at each time.

    Raises InvalidRequest.
    """
    try:
        checked = check_url(url, ports=None)
    except UrlRefused as error:
        raise InvalidRequest(f"the webhook cannot be called: {error}") from None
    if checked.address is not None and not may_reach(checked.address, allow_private=allow_private):
        raise InvalidRequest(
            f"the webhook leads to {checked.origin}, which is not public (JANUS_ALLOW_PRIVATE_WEBHOOKS)"
        )


def may_reach(address: IpAddress, *, allow_private: bool) -> bool:
    """Public addresses; inner ones where that is allowed, but for those that stand for no single machine."""
    if is_public(address):
        return True
    return allow_private and not (address.is_link_local or address.is_multicast or address.is_unspecified)


def pause_after(tries: int) -> timedelta:
    """How long to wait after so many tries, 1 at least."""
    return timedelta(seconds=PAUSES[min(tries, len(PAUSES)) - 1])


def job_ended(
    *,
    job_id: str,
    name: str,
    kind: str,
    model: str,
    state: JobState,
    reason: str | None,
    counts: Counts,
    failures: dict[str, int],
    created_at: datetime,
    started_at: datetime | None,
    finished_at: datetime,
) -> str:
    """The message, as JSON that is signed and sent as it is. `failures`: how many, by their code."""
    seconds = (finished_at - started_at).total_seconds() if started_at else None
    data: dict[str, Any] = {
        "id": job_id,
        "name": name,
        "kind": kind,
        "model": model,
        "state": state,
        "state_reason": reason,
        "items": {
            "total": counts.total,
            "results": counts.results,
            "failures": counts.failures,
            "cancelled": counts.cancelled,
            "reused": counts.reused,
        },
        "failures": failures,
        "created_at": created_at.isoformat(),
        "started_at": started_at.isoformat() if started_at else None,
        "finished_at": finished_at.isoformat(),
        "seconds": seconds,
        "items_per_second": counts.finished / seconds if seconds else None,
        "path": f"/v1/jobs/{job_id}",
    }
    message = {"type": f"job.{state}", "timestamp": finished_at.isoformat(), "data": data}
    return json.dumps(message, ensure_ascii=False)
