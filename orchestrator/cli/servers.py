"""`janus up | down | status`, and the server processes for compose and systemd."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.cli.connection import require_local, serving_name
from orchestrator.cli.output import ERROR, fail, note, print_json, print_table
from orchestrator.cli.submit import AsJson
from orchestrator.settings import default_home

Models = Annotated[list[str] | None, typer.Option("--model", help="A registry name or checkpoint folder; may repeat.")]


def up(
    model: Models = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; each serves all models.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is ready.")] = 180,
    as_json: AsJson = False,
) -> None:
    """Start the local stack, or reuse the one that runs: Postgres, Valkey, S3, API, dispatcher, worker."""
    local = require_local()
    models = [serving_name(one) for one in model] if model else None
    try:
        info = local.up(default_home(), models, timeout, workers)
    except local.LocalError as error:
        raise fail(str(error)) from None
    if as_json:
        print_json({"url": info.url, "models": info.models, "ports": info.ports, "pids": info.pids})
        return
    verb = "is running already" if info.already_running else "is up"
    print(f"the local stack {verb}: {info.url} (data in {default_home()})")
    print(f"models: {', '.join(info.models) or 'none yet; `janus up --model CHECKPOINT` serves one'}")
    print(f'for other programs: export JANUS_URL={info.url} JANUS_API_KEY="$(cat {default_home()}/api_key)"')


def down() -> None:
    """Stop the local stack; its data stays."""
    local = require_local()
    try:
        was_running = local.down(default_home())
    except local.LocalError as error:
        raise fail(str(error)) from None
    note("the local stack is down" if was_running else "the local stack was not running")


def status(as_json: AsJson = False) -> None:
    """How the local stack stands. Exit 1 where it is not running."""
    found = require_local().status(default_home())
    if as_json:
        print_json(_as_dict(found))
    else:
        print(f"{found.phase} {found.url if found.running else ''}".strip())
        if found.error:
            note(found.error)
        rows = [(p.name, p.pid or "", "yes" if p.alive else "no", p.restarts, p.port or "") for p in found.processes]
        print_table(("PROCESS", "PID", "ALIVE", "RESTARTS", "PORT"), rows)
    if not found.running:
        raise typer.Exit(ERROR)


def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on (JANUS_API_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (JANUS_API_PORT).")] = None,
) -> None:
    """Run the API."""
    _become("orchestrator.api", "fastapi", "server", JANUS_API_HOST=host, JANUS_API_PORT=port)


def dispatcher() -> None:
    """Run the dispatcher: input to shards, shards to messages, lost leases back, results merged."""
    _become("orchestrator.dispatch", "celery", "server")


def worker(
    model: Models = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 … (JANUS_DEVICE).")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 (JANUS_DTYPE).")] = None,
) -> None:
    """Run a worker: one process, one GPU."""
    models = ",".join(serving_name(one) for one in model) if model else None
    _become("workers", "torch", "worker", JANUS_WORKER_MODELS=models, JANUS_DEVICE=device, JANUS_DTYPE=dtype)


def _become(module: str, needs: str, extra: str, **variables: object) -> NoReturn:
    """Replace this process: the command line itself never imports a server."""
    if find_spec(needs) is None:
        raise fail(f"this process needs more packages: pip install 'janus-batch[{extra}]'")
    given = {name: str(value) for name, value in variables.items() if value is not None}
    os.execve(sys.executable, [sys.executable, "-m", module], {**os.environ, **given})  # noqa: S606


def _as_dict(found: Any) -> dict[str, Any]:
    processes = [vars(process) for process in found.processes]
    return {"running": found.running, "phase": found.phase, "url": found.url, "models": found.models,
            "error": found.error, "processes": processes}  # fmt: skip
