"""What the supervisor writes into the stack's folder, and others read: `stack.json` and `models.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.local.files import read_json, write_json


@dataclass(frozen=True)
class ProcessState:
    """One process as the supervisor last saw it; `quick_ends` says how often in a row it ended soon after its start."""

    name: str
    pid: int | None
    restarts: int
    port: int | None = None
    ending: bool = False
    quick_ends: int = 0


@dataclass(frozen=True)
class StackState:
    """`phase` is starting, running, stopping, stopped or failed; `error` says why it failed."""

    phase: str = "stopped"
    error: str = ""
    url: str = ""
    models: Sequence[str] = ()
    processes: Sequence[ProcessState] = field(default_factory=tuple)

    @classmethod
    def read(cls, home: Path) -> StackState:
        """What was last written; `stopped` when nothing was."""
        value = read_json(home / "stack.json")
        try:
            value["processes"] = tuple(ProcessState(**process) for process in value["processes"])
            value["models"] = tuple(value["models"])
            return cls(**value)
        except (KeyError, TypeError):
            return cls()

    def write(self, home: Path) -> None:
        """Replace the file in one step."""
        write_json(home / "stack.json", asdict(self))


@dataclass(frozen=True)
class Wanted:
    """Which models are served, each `name` or `name=/path/to/checkpoint`, and by how many workers."""

    models: Sequence[str] = ()
    workers: int = 1

    @classmethod
    def read(cls, home: Path) -> Wanted:
        """What was last asked for; no models when nothing was."""
        value = read_json(home / "models.json")
        return cls(tuple(value.get("models", ())), int(value.get("workers", 1)))

    def write(self, home: Path) -> None:
        """Replace the file in one step."""
        write_json(home / "models.json", {"models": list(self.models), "workers": self.workers})
