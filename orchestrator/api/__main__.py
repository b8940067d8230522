"""The API process."""

from __future__ import annotations

import sys

import uvicorn

from orchestrator.api.app import create_app
from orchestrator.api.dependencies import Services
from orchestrator.artifacts import open_places, open_store
from orchestrator.db.session import connect, session_factory
from orchestrator.domain.rates import RateLimit
from orchestrator.metrics import serve_metrics, watch_connections
from orchestrator.settings import Settings, SettingsError, get_settings
from orchestrator.telemetry import configure_logging
from orchestrator.transport import redis_ping


def open_services(settings: Settings) -> Services:
    """Connections to Postgres, Redis and the store; none of them is used yet."""
    engine = connect(settings.database_url.get_secret_value(), pool_size=20, name="janus api")
    watch_connections(engine)
    rates = RateLimit(settings.max_requests_per_minute)
    store, places = open_store(settings), open_places(settings)
    return Services(settings, session_factory(engine), store, redis_ping(settings), rates, places)


def main() -> int:
    try:
        settings = get_settings()
        configure_logging(settings.log_level, hidden=settings.secret_texts(), process="api")
        serve_metrics(settings)
        services = open_services(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    uvicorn.run(
        create_app(services),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),  # else anybody says in a header where he comes from
        forwarded_allow_ips=settings.trusted_proxies,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
