"""A worker whose engine takes the whole process down when it meets a poisoned prompt, as a bad kernel would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from workers import __main__, engine_host

POISON = "poison"
load = engine_host.load


class PoisonedEngine:
    """A real engine with one fatal weakness."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.info = engine.info

    def generate(self, requests: Sequence[Any], **values: Any) -> list[Any]:
        if any(POISON in request.prompt for request in requests):
            os._exit(139)
        return self._engine.generate(requests, **values)


def poisoned_load(*arguments: Any, **values: Any) -> dict[str, Any]:
    return {name: PoisonedEngine(engine) for name, engine in load(*arguments, **values).items()}


if __name__ == "__main__":
    engine_host.load = poisoned_load
    raise SystemExit(__main__.main())
