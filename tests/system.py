"""The whole system as processes on real servers, to be used and to be hurt."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from orchestrator.admin import ensure_key, migrate
from orchestrator.client import Client, ClientError
from orchestrator.settings import Settings

# Short times, so that a killed worker costs a test seconds rather than a minute.
FAST = {
    "JANUS_LEASE_SECONDS": "4",
    "JANUS_HEARTBEAT_SECONDS": "1",
    "JANUS_CONTROL_SECONDS": "0.3",
    "JANUS_FLUSH_SECONDS": "0.5",
    "JANUS_LOOP_SECONDS": "0.1",
    "JANUS_REPUBLISH_SECONDS": "2",
    "JANUS_RETRY_DELAY_SECONDS": "0.5",
    "JANUS_STUCK_SECONDS": "20",
    "JANUS_DTYPE": "float32",  # what is promised to be equal in any batch
    "OMP_NUM_THREADS": "1",
}


def product_settings(names: Iterable[str] = FAST) -> dict[str, str]:
    """The product's own values in place of what tests shorten; the dtype, and what is no setting of ours, stay."""
    fields = {f"JANUS_{name.upper()}": field for name, field in Settings.model_fields.items()}
    return {name: str(fields[name].default) for name in names if name in fields and name != "JANUS_DTYPE"}


class System:
    """API, dispatcher and workers as child processes.

    Args:
        environment: where the servers are.
        models: as in JANUS_WORKER_MODELS.
    """

    def __init__(self, environment: dict[str, str], logs: Path, models: str, **settings: str) -> None:
        self.port = free_port()
        self.environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("JANUS_")}
            | FAST
            | environment
            | {"JANUS_API_PORT": str(self.port), "JANUS_WORKER_MODELS": models, "JANUS_HOME": str(logs)}
            | settings
        )
        self.settings = settings_of(self.environment)
        self.url = f"http://127.0.0.1:{self.port}"
        self.logs = logs
        self._models = {model.partition("=")[0] for model in models.split(",")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        migrate(self.settings)
        self.admin_key = self.make_admin_key()

    def start(self, workers: int = 1) -> None:
        """Start everything and wait until it serves."""
        self.run("api", "orchestrator.api")
        self.run("dispatcher", "orchestrator.dispatch")
        for number in range(workers):
            self.start_worker(f"worker-{number}")
        self.wait_for_workers(workers)

    def start_api(self, **variables: str) -> None:
        """Start the API alone, or anew, and wait until it answers."""
        if "api" in self.processes:
            self.kill("api")
        self.run("api", "orchestrator.api", **variables)
        self.wait_until(lambda: api_answers(self.url), "the API answers")

    def start_worker(self, name: str) -> None:
        self.run(name, "workers", JANUS_WORKER_ID=f"{name}-{time.time_ns()}")

    def run(self, name: str, module: str, **variables: str) -> None:
        with self.log_path(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module], env=self.environment | variables, stdout=log, stderr=log
            )

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill one process and wait for its end."""
        self.processes[name].send_signal(number)
        self.processes.pop(name).wait(60)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_workers(self, count: int, timeout_seconds: float = 60) -> None:
        with self.client() as client:
            self.wait_until(lambda: self._alive(client) >= count, f"{count} workers serve", timeout_seconds)

    def _alive(self, client: Client) -> int:
        """Live workers of this system's models; another system may use the same database."""
        try:
            return sum(worker.alive and set(worker.models) == self._models for worker in client.workers())
        except ClientError:
            return 0

    def wait_until(self, holds: Any, what: str, timeout_seconds: float = 30) -> None:
        """Ask again and again; fail with the ends of the logs."""
        give_up_at = time.monotonic() + timeout_seconds
        while not holds():
            if time.monotonic() > give_up_at:
                raise AssertionError(f"not within {timeout_seconds} s: {what}\n{self.log_ends()}")
            time.sleep(0.05)

    def log_ends(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.logs.glob("*.log")))

    def client(self, key: str | None = None) -> Client:
        return Client(self.url, key or self.admin_key, max_retries=6)

    def make_key(self, team: str, scopes: Sequence[str] = ("jobs:read", "jobs:write")) -> str:
        return ensure_key(self.settings, team=team, name="test", scopes=list(scopes))

    def make_admin_key(self) -> str:
        return self.make_key("operators", ["admin", "jobs:read", "jobs:write"])

    def janus(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a person of the operators' team would use it."""
        environment = self.environment | {"JANUS_URL": self.url, "JANUS_API_KEY": self.admin_key} | variables
        command = [sys.executable, "-c", "from orchestrator.cli.main import app; app()", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def api_answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


@contextmanager
def running_system(
    environment: dict[str, str], logs: Path, models: str, *, workers: int, **settings: str
) -> Iterator[System]:
    logs.mkdir(parents=True, exist_ok=True)
    system = System(environment, logs, models, **settings)
    try:
        system.start(workers)
        yield system
    finally:
        system.stop()


def settings_of(environment: dict[str, str]) -> Settings:
    """Settings from a dictionary instead of this process's environment."""
    prefix = "JANUS_"
    return Settings(**{k.removeprefix(prefix).lower(): v for k, v in environment.items() if k.startswith(prefix)})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
