"""What the worker's packages know of models, asked of them in a process of their own: this one imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.cli.output import fail

REGISTRY = (sys.executable, "-m", "janus_core.registry")


def known_models() -> list[dict[str, Any]] | None:
    """Models with a name; None where the worker's packages are not installed. Exits where the registry fails."""
    if find_spec("torch") is None:
        return None
    done = subprocess.run([*REGISTRY, "list", "--json"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise fail(f"the registry of models cannot be read: {done.stderr.strip()}")
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


def require_servable(name: str) -> None:
    """Exit where a worker of this machine could not load this model: it would be started again and again for nothing.

    name: a registry name, or `name=/path` of a checkpoint folder.
    """
    _, is_folder, path = name.partition("=")
    if is_folder:
        if not Path(path).is_dir():
            raise fail(f"{path} is no folder with a checkpoint")
        return
    known = known_models()
    if known is None:
        return
    found = next((model for model in known if model["name"] == name), None)
    if found is None:
        names = ", ".join(model["name"] for model in known)
        raise fail(f"no model is called {name!r}; give a checkpoint's folder, or one of {names}")
    if not found["revision"]:
        raise fail(f"{name} is not on this machine yet: janus models pull {name}")
