"""`janus models …`: what servers serve, and checkpoints on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated, NoReturn

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import fail, print_table, show, told_errors
from orchestrator.cli.submit import AsJson

app = typer.Typer(no_args_is_help=True, help="Models that are served, and checkpoints on this machine.")


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Models that workers have served, and which are served now."""
    with told_errors():
        found = connect().models()
    rows = [(m.name, m.family, m.revision, "yes" if m.served else "no") for m in found]
    show(found, as_json=as_json, otherwise=lambda: print_table(("NAME", "FAMILY", "REVISION", "SERVED"), rows))


@app.command("show")
def show_model(name: Annotated[str, typer.Argument(help="A published model's name.")], as_json: AsJson = False) -> None:
    """What the registry knows of a published model."""
    _registry("show", name, *(["--json"] if as_json else []))


@app.command("pull")
def pull_model(name: Annotated[str, typer.Argument(help="A published model's name.")]) -> None:
    """Fetch a published checkpoint into $JANUS_HOME/models and lock its digests."""
    _registry("pull", name)


@app.command("verify")
def verify_model(name: Annotated[str, typer.Argument(help="A name or a checkpoint folder.")]) -> None:
    """Compare a checkpoint's files with the digests that were locked when it was pulled."""
    _registry("verify", name)


def _registry(*arguments: str) -> NoReturn:
    """Hand over to janus_core, which this package never imports."""
    if find_spec("torch") is None:
        raise fail("checkpoints need the worker's packages: pip install 'janus-batch[worker]'")
    os.execv(sys.executable, [sys.executable, "-m", "janus_core.registry", *arguments])  # noqa: S606
