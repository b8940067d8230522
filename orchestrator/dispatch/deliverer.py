"""Tells webhooks of the ends of jobs: signed, at least once, again for a day where nobody listens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import httpcore
from standardwebhooks import Webhook

from orchestrator.db import webhooks
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import DeliveryRow
from orchestrator.domain.urls import UrlRefused, check_url
from orchestrator.domain.webhooks import MAX_TRIES, may_reach
from orchestrator.outbound import NoAddress, Outbound
from orchestrator.telemetry import carried, get_logger

AT_ONCE = 16
GONE = 410  # the receiver wants no more
KEPT = timedelta(days=7)
USER_AGENT = ("User-Agent", "janus-batch")
_UNREACHABLE = (NoAddress, httpcore.NetworkError, httpcore.ProtocolError, OSError, UnicodeError)


class Deliverer:
    """Args:
    seconds: for one try, from the first look-up to the answer.
    allow_private: whether a webhook may lead to inner addresses.
    """

    def __init__(self, sessions: SessionFactory, *, seconds: float, allow_private: bool) -> None:
        self._sessions = sessions
        self._seconds = seconds
        self._outbound = Outbound(
            instead="the server's operator may allow that (JANUS_ALLOW_PRIVATE_WEBHOOKS)",
            may_connect=partial(may_reach, allow_private=allow_private),
        )

    def run_once(self, now: datetime) -> int:
        """Try messages that are due, some at once; how many were tried."""
        with self._sessions.begin() as session:
            webhooks.forget_ended(session, now, older_than=KEPT, limit=1000)
            claimed = webhooks.claim(session, now, limit=AT_ONCE)
        if claimed:
            with ThreadPoolExecutor(len(claimed), thread_name_prefix="deliver", initializer=carried()) as pool:
                list(pool.map(self._deliver, claimed))
        return len(claimed)

    def close(self) -> None:
        self._outbound.close()

    def _deliver(self, delivery: DeliveryRow) -> None:
        status, trouble = self._send(delivery)
        is_over = trouble is None or delivery.tries >= MAX_TRIES or status == GONE
        with self._sessions.begin() as session:
            if trouble is None:
                webhooks.note_delivered(session, delivery)
            else:
                webhooks.note_trouble(session, delivery, trouble, is_over=is_over)
        said = {"job": delivery.job_id, "team": delivery.team_id, "message": delivery.id, "tries": delivery.tries}
        if trouble is None:
            get_logger().info("webhook_delivered", **said)
        else:
            get_logger().warning("webhook_failed", **said, trouble=trouble, given_up=is_over)

    def _send(self, delivery: DeliveryRow) -> tuple[int | None, str | None]:
        """The status that came back, and what was wrong: None where the message was taken."""
        try:
            url = check_url(delivery.url, ports=None)
            with self._outbound.stream(
                "POST", url, time.monotonic() + self._seconds, _headers(delivery), delivery.body.encode()
            ) as response:
                status = response.status
        except UrlRefused as error:
            return None, str(error)
        except (TimeoutError, httpcore.TimeoutException):
            return None, f"{url.origin} did not answer within {self._seconds:g} s (JANUS_WEBHOOK_SECONDS)"
        except _UNREACHABLE as error:
            return None, f"{url.origin} could not be reached ({type(error).__name__}: {error})"[:500]
        return status, None if 200 <= status < 300 else f"{url.origin} answered {status}; only 2xx takes a message"


def _headers(delivery: DeliveryRow) -> list[tuple[str, str]]:
    """Those of Standard Webhooks. The signature holds the time of this try."""
    at = datetime.now(UTC)
    return [
        USER_AGENT,
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(delivery.body.encode()))),
        ("Connection", "close"),
        ("webhook-id", delivery.id),
        ("webhook-timestamp", str(int(at.timestamp()))),
        ("webhook-signature", Webhook(delivery.secret).sign(delivery.id, at, delivery.body)),
    ]
