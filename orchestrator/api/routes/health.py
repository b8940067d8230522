"""Is it up (`/healthz`), and can it work (`/readyz`)."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from orchestrator.api.dependencies import AppServices
from orchestrator.artifacts.base import BucketMissing
from orchestrator.db.session import ping
from orchestrator.revisions import MIGRATE, find_revision, migrations_behind
from orchestrator.schemas import Readiness
from orchestrator.telemetry import get_logger

router = APIRouter(tags=["health"])


class NotReady(Exception):
    """What is missing, in words that anybody may read."""


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(services: AppServices, response: Response) -> Readiness:
    """Postgres, Redis and the store answer, the schema is not behind, and the bucket is there."""

    def database() -> None:
        with services.sessions() as session:
            ping(session)

    def schema() -> None:
        with services.sessions() as session:
            if behind := migrations_behind(find_revision(session)):
                raise NotReady(f"lacks {behind} migrations; {MIGRATE}")

    checks = {
        "postgres": _check(database),
        "schema": _check(schema),
        "redis": _check(services.ping_broker),
        "store": _check(services.store.ping),
    }
    ready = all(answer == "ok" for answer in checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", checks=checks)


def _check(ask: Callable[[], None]) -> str:
    try:
        ask()
    except BucketMissing:
        return f"has no bucket; {MIGRATE}"
    except Exception as error:
        get_logger().warning("not_ready", error=f"{type(error).__name__}: {error}"[:500])
        return str(error) if isinstance(error, NotReady) else "does not answer; the API's log says more"
    return "ok"
