"""A worker whose engine takes the whole process down when it meets a poisoned prompt, as a bad kernel would."""

from __future__ import annotations

import os
from typing import Any

from workers import __main__, engine_host

POISON = "poison"
load = engine_host.load


class PoisonedEngine:
    """A real engine with one fatal weakness."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, request: Any, *, job: str, order: int) -> Any:
        row = self._engine.prepare(request, job=job, order=order)
        row.is_poisoned = POISON in request.prompt
        return row

    def start(self, row: Any) -> None:
        if row.is_poisoned:
            os._exit(139)
        self._engine.start(row)


def poisoned_load(*arguments: Any, **values: Any) -> dict[str, Any]:
    return {name: PoisonedEngine(engine) for name, engine in load(*arguments, **values).items()}


if __name__ == "__main__":
    engine_host.load = poisoned_load
    raise SystemExit(__main__.main())
