"""The publishing end of the queue: shard id and attempt number, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from orchestrator.db.queueing import Message
from orchestrator.domain.errors import JanusError
from orchestrator.settings import Settings
from orchestrator.transport import EXPRESS, ORDINARY, RUN_SHARD, lists_of, queue_of, transport_options


class BrokerUnavailable(JanusError):
    """Redis did not take a message; the row in Postgres still says dispatched, so it will be published again."""


class Broker(Protocol):
    def publish(self, messages: Iterable[Message]) -> None: ...

    def depth(self, model: str) -> int:
        """Messages that no worker has fetched yet."""
        ...


class CeleryBroker:
    """The queue that Celery workers read."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        self._app = Celery("orchestrator", broker=url)
        self._app.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            broker_transport_options=transport_options(settings),
            broker_connection_timeout=5,
        )
        self._redis = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)

    def publish(self, messages: Iterable[Message]) -> None:
        try:
            with self._app.producer_pool.acquire(block=True) as producer:
                for message in messages:
                    self._app.send_task(
                        RUN_SHARD,
                        args=[message.shard_id, message.attempt],
                        queue=queue_of(message.model),
                        priority=EXPRESS if message.is_express else ORDINARY,
                        producer=producer,
                        retry=False,
                    )
        except (OperationalError, RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis did not take the message: {error}") from error

    def depth(self, model: str) -> int:
        try:
            return sum(int(self._redis.llen(name)) for name in lists_of(model))
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"Redis did not say how deep {queue_of(model)} is: {error}") from error
