"""One worker process: its connections, its engines, its leases."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time

from orchestrator.artifacts import open_store
from orchestrator.db import rates, workers
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.metrics import watch_connections
from orchestrator.settings import Settings
from orchestrator.telemetry import get_logger, name_process
from orchestrator.transport import redis_ping
from workers import engine_host, metrics
from workers.engine_host import EngineHost
from workers.heartbeat import Heartbeat
from workers.inputs import open_inputs
from workers.runner import Runner


class WorkerProcess:
    """Everything that lives as long as the process. Opening it loads the models and makes the worker known."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        name_process(worker=self.worker_id)
        url = settings.database_url.get_secret_value()
        engine = connect(url, pool_size=settings.shards_in_flight + 4, name="janus worker")
        watch_connections(engine)
        self.sessions: SessionFactory = session_factory(engine)
        self.store = open_store(settings)
        self.inputs = open_inputs(settings, self.store)
        engines = engine_host.load(
            settings.worker_models,
            device=settings.device,
            dtype=settings.dtype,
            kernels=settings.kernels,
            quantize=settings.quantize,
            max_rows=settings.max_batch or None,
        )
        self.host = EngineHost(engines)
        metrics.watch_host(self.host)
        self.heartbeat = Heartbeat(
            self.sessions,
            self.worker_id,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            control_seconds=settings.control_seconds,
        )
        self.runner = Runner(
            settings, self.worker_id, self.sessions, self.store, self.inputs, self.heartbeat, self.host
        )
        self._ping_broker = redis_ping(settings)
        self._closed = threading.Event()

    def register(self) -> None:
        """Say which models are served here, and begin to beat."""
        with self.sessions.begin() as session:
            workers.prune_workers(session)
            rates.prune(session)
            for model in self.host.models:
                info = self.host.info(model)
                workers.register_model(
                    session, model, family=info.family, revision=info.revision, image_size=info.image_size
                )
            workers.register_worker(
                session, self.worker_id, host=socket.gethostname(), pid=os.getpid(), models=self.host.models
            )
        self.heartbeat.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def close(self) -> None:
        """Say goodbye; leases that are still held run out by themselves."""
        self._closed.set()
        self.heartbeat.close()
        self.inputs.close()
        try:
            with self.sessions.begin() as session:
                workers.mark_stopped(session, self.worker_id)
        except Exception as error:
            get_logger().warning("goodbye_failed", error=str(error)[:300])

    def _watch(self) -> None:
        """End a process that cannot work: its engine hangs, or it hears nothing while work waits."""
        deaf_since: float | None = None
        while not self._closed.wait(min(self.settings.stuck_seconds / 8, 15)):
            if self.host.stuck_seconds() > self.settings.engine_stuck_seconds:
                engine_host.die(f"the engine took no step for {self.host.stuck_seconds():.0f} s")
            if not self._hears_nothing():
                deaf_since = None
                continue
            deaf_since = deaf_since or time.monotonic()
            if time.monotonic() - deaf_since > self.settings.stuck_seconds:
                get_logger().error("deaf", seconds=time.monotonic() - deaf_since)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _hears_nothing(self) -> bool:
        """True while this process holds nothing although shards for it are in a queue that answers."""
        try:
            if self.heartbeat.holds_any or self.heartbeat.draining:
                return False
            self._ping_broker()
            with self.sessions() as session:
                return workers.has_dispatched_shards(session, self.host.models)
        except Exception as error:
            get_logger().warning("watch_failed", error=str(error)[:300])
            return False
