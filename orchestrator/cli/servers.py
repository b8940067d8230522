"""`janus up | down | status`, and the server processes for compose and systemd."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.cli.connection import add_models, require_local, serving_name
from orchestrator.cli.output import ERROR, AsJson, fail, note, print_json, print_table, show
from orchestrator.cli.registry import require_servable
from orchestrator.settings import DEFAULT_MODEL, default_home

Models = Annotated[list[str] | None, typer.Option("--model", help="A registry name or checkpoint folder; may repeat.")]


def up(
    model: Models = None,
    only: Annotated[bool, typer.Option("--only", help="Serve these models and no others.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, each serving all models; 1, or as many as run.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until it is ready.")] = 180,
    as_json: AsJson = False,
) -> None:
    """Start the local stack, or reuse the one that runs: Postgres, Valkey, S3, API, dispatcher, worker.

    Where it runs, models are added to those it serves. Where it does not, it serves those given, or those of last time,
    or else the one that comes with the package.
    """
    if only and not model:
        raise typer.BadParameter("--only needs --model")
    local = require_local()
    status = local.status()
    models = [serving_name(one) for one in model] if model else None
    for one in models or ():
        require_servable(one)
    if status.running and not only and (models or workers):
        models = add_models(status.models, models or [])
    elif models is None and (workers or not status.models):
        models = list(status.models) or [DEFAULT_MODEL]
    info = local.start(models, workers=workers or local.count_workers(), timeout_seconds=timeout)
    if as_json:
        print_json({"url": info.url, "models": info.models, "ports": info.ports, "pids": info.pids})
        return
    verb = "is running already" if info.already_running else "is up"
    print(f"the local stack {verb}: {info.url} (data in {default_home()})")
    print(f"models: {', '.join(info.models)}")
    print(f'for other programs: export JANUS_URL={info.url} JANUS_API_KEY="$(cat {default_home()}/api_key)"')


def down(as_json: AsJson = False) -> None:
    """Stop the local stack; its data stays."""
    was_running = require_local().stop()
    told = "the local stack is down" if was_running else "the local stack was not running"
    show({"was_running": was_running}, as_json=as_json, otherwise=lambda: note(told))


def status(as_json: AsJson = False) -> None:
    """How the local stack stands. Exit 1 where it is not running."""
    found = require_local().status()
    if as_json:
        print_json(_as_dict(found))
    else:
        print(f"{found.phase} {found.url if found.running else ''}".strip())
        if found.error:
            note(found.error)
        rows = [(p.name, p.pid or "", "yes" if p.alive else "no", p.restarts, p.port or "") for p in found.processes]
        print_table(("PROCESS", "PID", "ALIVE", "RESTARTS", "PORT"), rows)
        for process in found.processes:
            if process.trouble:
                note(process.trouble)
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
    quantize: Annotated[str | None, typer.Option(help="none, int8 (JANUS_QUANTIZE).")] = None,
) -> None:
    """Run a worker: one process, one GPU."""
    models = ",".join(serving_name(one) for one in model) if model else None
    _become(
        "workers",
        "torch",
        "worker",
        JANUS_WORKER_MODELS=models,
        JANUS_DEVICE=device,
        JANUS_DTYPE=dtype,
        JANUS_QUANTIZE=quantize,
    )


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
