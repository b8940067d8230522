"""The Celery application and its settings, each with its reason."""

from __future__ import annotations

from celery import Celery

from orchestrator.settings import Settings
from orchestrator.transport import transport_options
from workers.lost_acks import LostAcks


def create_app(settings: Settings) -> Celery:
    """A consumer of shard messages; Postgres is the state, so Celery keeps none."""
    app = Celery("janus", broker=settings.redis_url.get_secret_value())
    app.conf.update(
        # A message is acknowledged when its attempt has ended; with prefetch 1 a worker holds what it runs and no more.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # A worker that dies leaves a lease that runs out: attempts are counted in Postgres, not by redelivery, which
        # would loop for ever on a message that kills its worker.
        task_reject_on_worker_lost=False,
        # No result backend: results are rows and objects.
        task_ignore_result=True,
        task_track_started=False,
        # Pickle would let anyone who reaches Redis run code here.
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options=transport_options(settings),
        # A broker that is away at start or later is waited for, for ever: the queue holds nothing that can be lost.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # After a dropped connection the message comes again and finds the lease taken; threads cannot be cancelled.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Events, remote control and its queues are noise here: liveness is the heartbeat row.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        # Reloading a model costs a minute; nothing here leaks by design.
        worker_max_tasks_per_child=None,
        timezone="UTC",
        enable_utc=True,
    )
    app.steps["consumer"].add(LostAcks)
    return app
