"""How publisher and worker speak through Redis: one set of options, because the smaller visibility timeout wins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import Redis

from orchestrator.settings import Settings

RUN_SHARD = "workers.tasks.run_shard"  # the task's name on the wire; the publisher never imports it
EXPRESS, ORDINARY = 0, 9  # priorities of messages; kombu keeps a list for each, and empties the lower number's first


def queue_of(model: str) -> str:
    """One queue a model."""
    return f"janus.{model}"


def lists_of(model: str) -> tuple[str, str]:
    """The Redis lists of a queue: express, and ordinary as kombu's transport calls it."""
    return queue_of(model), f"{queue_of(model)}\x06\x16{ORDINARY}"


def transport_options(settings: Settings) -> dict[str, Any]:
    """Options of kombu's Redis transport, each with its reason."""
    return {
        # An unacked message is delivered again after this; longer than any shard, since duplicates are only noise.
        "visibility_timeout": settings.visibility_timeout_seconds,
        # The default sweep for such messages comes about every 100 s.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A worker killed while it holds this lock blocks all redelivery until it expires; the default is 300 s.
        "unacked_mutex_expire": 10,
        "priority_steps": [EXPRESS, ORDINARY],
        # Without a timeout a publish waits for ever on a dead peer.
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def open_redis(settings: Settings) -> Redis:
    """A client that waits 5 s and no longer."""
    return Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5, socket_connect_timeout=5)


def redis_ping(settings: Settings) -> Callable[[], None]:
    """A call that raises unless Redis answers."""
    client = open_redis(settings)

    def ping() -> None:
        client.ping()

    return ping
