"""`janus models …`: what servers serve, and checkpoints on this machine."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Annotated, NoReturn

import typer

from orchestrator.cli.connection import connect, find_server
from orchestrator.cli.output import AsJson, fail, note, print_table, show, told_errors
from orchestrator.cli.registry import REGISTRY, known_models

app = typer.Typer(no_args_is_help=True, help="Models that are served, and checkpoints on this machine.")


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Models that workers have served, which are served now, and the others that have a name."""
    known = known_models()
    with told_errors():
        client = find_server() if known else connect()
        served = client.models() if client else []
    models = [_Model(m.name, m.family, m.revision, served=m.served) for m in served]
    listed = {model.name for model in models}
    models += [
        _Model(p["name"], p["family"], p["revision"] or "", served=False)
        for p in known or ()
        if p["name"] not in listed
    ]
    rows = [(m.name, m.family, m.revision or "not pulled", "yes" if m.served else "no") for m in models]
    show(
        [asdict(model) for model in models],
        as_json=as_json,
        otherwise=lambda: print_table(("NAME", "FAMILY", "REVISION", "SERVED"), rows),
    )
    if known is None:
        note("models with a name are listed where the worker's packages are: pip install 'janus-batch[worker]'")
    elif client is None:
        note("no server: these have a name; `janus up --model NAME` serves one that is shipped or was pulled")


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")], as_json: AsJson = False
) -> None:
    """What the registry knows of a model."""
    _registry("show", name, *_json_flag(as_json))


@app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A published model's name.")], as_json: AsJson = False
) -> None:
    """Fetch a published checkpoint into $JANUS_HOME/models and lock its digests."""
    _registry("pull", name, *_json_flag(as_json))


@app.command("verify")
def verify_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name or a checkpoint folder.")],
    lock: Annotated[
        bool, typer.Option("--lock", help="Lock a folder that never was, such as a checkpoint of your own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a checkpoint's files with the digests that were locked when it was pulled."""
    _registry("verify", name, *(["--lock"] if lock else []), *_json_flag(as_json))


@dataclass(frozen=True)
class _Model:
    name: str
    family: str
    revision: str
    served: bool


def _json_flag(as_json: bool) -> list[str]:
    return ["--json"] if as_json else []


def _registry(*arguments: str) -> NoReturn:
    """Hand over to janus_core, which this package never imports."""
    if find_spec("torch") is None:
        raise fail("checkpoints need the worker's packages: pip install 'janus-batch[worker]'")
    os.execv(sys.executable, [*REGISTRY, *arguments])  # noqa: S606
