"""One worker process: its connections, its engines, its leases."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading

from orchestrator.artifacts import open_store
from orchestrator.db import workers
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.settings import Settings
from orchestrator.telemetry import get_logger
from workers import engine_host
from workers.engine_host import EngineHost
from workers.heartbeat import Heartbeat
from workers.runner import Runner


class WorkerProcess:
    """Everything that lives as long as the process. Opening it loads the models and makes the worker known."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        engine = connect(settings.database_url.get_secret_value(), pool_size=settings.shards_in_flight + 4)
        self.sessions: SessionFactory = session_factory(engine)
        self.store = open_store(settings)
        engines = engine_host.load(settings.worker_models, device=settings.device, dtype=settings.dtype)
        self.host = EngineHost(engines, max_batch=settings.max_batch)
        self.heartbeat = Heartbeat(
            self.sessions,
            self.worker_id,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            control_seconds=settings.control_seconds,
        )
        self.runner = Runner(settings, self.worker_id, self.sessions, self.store, self.heartbeat, self.host)
        self._closed = threading.Event()

    def register(self) -> None:
        """Say which models are served here, and begin to beat."""
        with self.sessions.begin() as session:
            for model in self.host.models:
                info = self.host.info(model)
                workers.register_model(session, model, family=info.family, revision=info.revision)
            workers.register_worker(
                session, self.worker_id, host=socket.gethostname(), pid=os.getpid(), models=self.host.models
            )
        self.heartbeat.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """Say goodbye; leases that are still held run out by themselves."""
        self._closed.set()
        self.heartbeat.close()
        try:
            with self.sessions.begin() as session:
                workers.mark_stopped(session, self.worker_id)
        except Exception as error:
            get_logger(worker=self.worker_id).warning("goodbye_failed", error=str(error)[:300])

    def _watch(self) -> None:
        """End a process that hears nothing while work waits: its consumer went deaf after the broker dropped it."""
        limit = self.settings.stuck_seconds
        while not self._closed.wait(min(limit / 4, 15)):
            try:
                if self.heartbeat.idle_seconds() < limit or self.heartbeat.draining:
                    continue
                with self.sessions() as session:
                    unanswered = workers.oldest_unanswered_seconds(session, self.host.models)
            except Exception as error:
                get_logger(worker=self.worker_id).warning("watch_failed", error=str(error)[:300])
                continue
            # Shards are published again and again while nobody answers, so any age shows that messages go unheard.
            if unanswered > self.settings.republish_seconds / 2:
                get_logger(worker=self.worker_id).error("deaf", idle_seconds=self.heartbeat.idle_seconds())
                os.kill(os.getpid(), signal.SIGTERM)
                return
