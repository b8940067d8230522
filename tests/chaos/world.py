"""The whole system on this machine, started once and hurt again and again, with somebody who restarts what ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from orchestrator.local.servers import Servers
from tests.chaos.engine import STEP
from tests.chaos.proxy import StoreProxy
from tests.system import FAST, System, product_settings

WORKERS = ("worker-0", "worker-1")
# Seconds instead of minutes; everything else of an ordinary storm is as in production.
SHORT = {
    "JANUS_LEASE_SECONDS": "2",
    "JANUS_HEARTBEAT_SECONDS": "0.5",
    "JANUS_CONTROL_SECONDS": "0.2",
    "JANUS_FLUSH_SECONDS": "5",  # as in production: parts come by the number of items
    "JANUS_LOOP_SECONDS": "0.1",
    "JANUS_REPUBLISH_SECONDS": "1.5",
    "JANUS_RETRY_DELAY_SECONDS": "0.3",
    "JANUS_STUCK_SECONDS": "8",
    "JANUS_VISIBILITY_TIMEOUT_SECONDS": "10",
}


class World:
    """Servers, a proxy before the store, API, dispatcher and two workers.

    Args:
        production: the settings' defaults, and outages of 30 s instead of 2.
        step_seconds: how long a turn of the engine takes.
    """

    def __init__(self, home: Path, *, production: bool = False, step_seconds: float = 0.0) -> None:
        self.home = home
        self.production = production
        self.outage_seconds = 30.0 if production else 2.0
        self.servers = Servers(home / "servers")
        self.servers.start()
        self.proxy = StoreProxy(self.servers.s3.port)
        endpoint = f"http://127.0.0.1:{self.proxy.port}"
        self.clock = home / "clock"
        self.system = System(
            self.servers.environment() | {"JANUS_S3_ENDPOINT": endpoint, "JANUS_S3_PUBLIC_ENDPOINT": endpoint},
            home, "chaos", CHAOS_CLOCK=str(self.clock), **{STEP: str(step_seconds)},
            **(product_settings(FAST | SHORT) if production else SHORT),
        )  # fmt: skip
        self.lease_seconds = self.system.settings.lease_seconds
        self.restarts = 0
        self._worker_ids: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        for name in ("api", "dispatcher", *WORKERS):
            self._run(name)
        self.system.wait_for_workers(len(WORKERS))
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def close(self) -> None:
        self._closed.set()
        self._supervisor.join()
        for name in WORKERS:
            self.send(name, signal.SIGCONT)
        self.system.stop()
        self.proxy.close()
        self.servers.stop()

    # --- Processes ------------------------------------------------------------------------------------------------

    def pid(self, name: str) -> int:
        return self.system.processes[name].pid

    def send(self, name: str, number: int) -> None:
        with self._lock:
            self.system.processes[name].send_signal(number)

    def replace(self, name: str, **variables: str) -> None:
        """End a process and start it with these variables; when it ends, it is started again without them."""
        with self._lock:
            process = self.system.processes[name]
            process.kill()
            process.wait()
            self._run(name, **variables)

    def set_off(self, guard: str) -> None:
        """Switch a guard off, or with "" on again, in all processes."""
        self.system.environment["CHAOS_OFF"] = guard
        for name in list(self.system.processes):
            self.replace(name)
        self.wait_until_serving()

    def calm(self) -> None:
        """Whatever a fault left behind is mended."""
        self.proxy.set("pass")
        self.servers.start()
        for name in WORKERS:
            self.send(name, signal.SIGCONT)

    def wait_until_serving(self) -> None:
        """Every process that runs now has begun its work."""
        query = "SELECT count(*) FROM workers WHERE id = ANY(%s) AND stopped_at IS NULL"
        ids = [self._worker_ids[name] for name in WORKERS]
        self.system.wait_until(lambda: self.sql(query, [ids])[0][0] == len(ids), "all workers serve", 60)
        self.system.wait_for_workers(len(WORKERS))  # which the API is asked for

    def _run(self, name: str, **variables: str) -> None:
        role = "worker" if name in WORKERS else name
        if role == "worker":
            self._worker_ids[name] = variables["JANUS_WORKER_ID"] = f"{name}-{time.time_ns()}"
        self.system.run(name, "tests.chaos.process", CHAOS_ROLE=role, **variables)

    def _supervise(self) -> None:
        while not self._closed.wait(0.1):
            with self._lock:
                for name, process in list(self.system.processes.items()):
                    if process.poll() is not None:
                        self.restarts += 1
                        self._run(name)

    # --- The database, as an onlooker -----------------------------------------------------------------------------

    @property
    def database_url(self) -> str:
        return self.servers.postgres.url.replace("+psycopg", "")

    def sql(self, query: str, values: Sequence[Any] = (), *, patience_seconds: float = 90) -> list[tuple[Any, ...]]:
        """All rows, however long Postgres is away."""
        give_up_at = time.monotonic() + patience_seconds
        while True:
            try:
                with psycopg.connect(self.database_url, connect_timeout=3, autocommit=True) as connection:
                    return connection.execute(query, values).fetchall()  # type: ignore[arg-type]
            except psycopg.OperationalError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)

    def held_by(self, name: str) -> list[int]:
        """Shards that this worker has a lease on."""
        query = "SELECT id FROM shards WHERE state = 'leased' AND worker_id LIKE %s"
        return [shard_id for (shard_id,) in self.sql(query, [f"{name}-%"])]

    def now(self) -> Any:
        """The database's clock."""
        return self.sql("SELECT clock_timestamp()")[0][0]
