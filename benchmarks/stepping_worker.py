"""A worker whose engine takes 10 ms a step and computes nothing, as one beside a GPU; it keeps book of its time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.fake_engine import FakeEngine, Row
from workers import __main__, engine_host
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest

STEP_SECONDS = 0.01
IMAGE_STEPS = 64
BOOK = "BENCH_BOOK"
PICTURE = Image.effect_noise((384, 384), 64).convert("RGB")


@dataclass(eq=False, kw_only=True)
class SteppingRow(Row):
    steps_left: int


class SteppingEngine(FakeEngine):
    """Rows run side by side, sixteen at most; a row that ended makes room at once."""

    def __init__(self) -> None:
        super().__init__("stepping", max_rows=16)
        self._book = Path(os.environ[BOOK]).open("a", encoding="ascii", buffering=1)  # noqa: SIM115

    @property
    def num_running(self) -> int:
        return min(self.max_rows, len(self.started))

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> SteppingRow:
        if isinstance(request, CaptionRequest):
            count = request.max_new_tokens
            return SteppingRow(steps_left=count, answer=Caption("a caption " * 20, tuple(range(count)), "stop"))
        return SteppingRow(steps_left=IMAGE_STEPS, answer=GeneratedImage(PICTURE, None))

    def turn(self) -> list[SteppingRow]:
        began, running = time.time(), self.started[: self.max_rows]
        time.sleep(STEP_SECONDS)
        for row in running:
            row.steps_left -= 1
        left = [row for row in running if row.steps_left <= 0 or row.is_cancelled]
        self._book.write(f"{began:.6f} {time.time():.6f} {len(running)}\n")
        self.started = [row for row in self.started if row not in left]
        return left


if __name__ == "__main__":
    engine_host.load = lambda *_, **__: {"stepping": SteppingEngine()}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
