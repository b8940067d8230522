"""A Celery consumer that notices when an acknowledgement was lost, and connects anew.

Celery 5.7 gives a failed acknowledgement up, but goes on counting its message as being worked on. A worker whose places
were all taken when the broker went away would hear nothing any more, and would not see that its connection is dead,
since it does not listen while it believes itself busy.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker import state

CHECK_SECONDS = 1.0


class LostAcks(bootsteps.StartStopStep):  # type: ignore[misc]
    """Compares what the broker's channel counts as being worked on with what is."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._missed = 0
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        self._missed = 0
        self._timer = consumer.timer.call_repeatedly(CHECK_SECONDS, self._check, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, consumer: Any) -> None:
        """Raises what makes the consumer connect anew, where two checks in a row found messages that nobody holds."""
        qos = consumer.task_consumer.channel.qos
        counted = qos.prefetch_count - (qos.can_consume_max_estimate() or 0)
        self._missed = self._missed + 1 if counted > len(state.reserved_requests) else 0
        if self._missed > 1:
            raise ConnectionError(f"{counted} messages are counted as being worked on, more than there are")
