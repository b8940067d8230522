"""What a run was begun with: it goes on with that, or not at all.

OUT/options.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from janus_core.errors import RunMismatch

_NAME = "options.json"
_PROGRESS = ("*/state.pt", "*/done.safetensors")


def begin(out: Path, options: Mapping[str, Any]) -> None:
    """Write the options down, or compare them with those of the run that is there and has come to a first save.

    Raises RunMismatch: names each that was another.
    """
    path = out / _NAME
    if path.is_file() and any(True for pattern in _PROGRESS for _ in out.glob(pattern)):
        _compare(path, options)
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(options, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _compare(path: Path, options: Mapping[str, Any]) -> None:
    try:
        before: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunMismatch(f"{path} cannot be read: {error}") from error
    names = dict.fromkeys([*before, *options])
    differing = [f"{name} {before.get(name)!r}" for name in names if before.get(name) != options.get(name)]
    if differing:
        raise RunMismatch(
            f"{path.parent} holds a run that was begun with {', '.join(differing)}. "
            "Give the same again, or another folder."
        )
