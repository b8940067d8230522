"""A worker whose engine takes 10 ms a step and computes nothing, as one beside a GPU; it keeps book of its time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from janus_core.processing.images import ImageSettings
from workers import __main__, engine_host
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest

STEP_SECONDS = 0.01
IMAGE_STEPS = 64
BOOK = "BENCH_BOOK"
PICTURE = Image.effect_noise((384, 384), 64).convert("RGB")


@dataclass(eq=False)
class Row:
    steps_left: int
    answer: Caption | GeneratedImage
    error: None = None
    begun_at: None = None
    is_cancelled: bool = False


class SteppingEngine:
    """Rows run side by side, sixteen at most; a row that ended makes room at once."""

    images = ImageSettings(384, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
    info = SimpleNamespace(name="stepping", family="none", revision="none", device="cpu", dtype="none", quantize="none")
    max_rows = 16

    def __init__(self) -> None:
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._book = Path(os.environ[BOOK]).open("a", encoding="ascii", buffering=1)  # noqa: SIM115

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running

    @property
    def num_running(self) -> int:
        return len(self._running)

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> Row:
        if isinstance(request, CaptionRequest):
            return Row(request.max_new_tokens, Caption("a caption " * 20, tuple(range(request.max_new_tokens)), "stop"))
        return Row(IMAGE_STEPS, GeneratedImage(PICTURE, None))

    def start(self, row: Row) -> None:
        self._waiting.append(row)

    def turn(self) -> list[Row]:
        began = time.time()
        room = self.max_rows - len(self._running)
        self._running += self._waiting[:room]
        del self._waiting[:room]
        time.sleep(STEP_SECONDS)
        for row in self._running:
            row.steps_left -= 1
        left = [row for row in self._running if row.steps_left <= 0 or row.is_cancelled]
        self._book.write(f"{began:.6f} {time.time():.6f} {len(self._running)}\n")
        self._running = [row for row in self._running if row not in left]
        return left


if __name__ == "__main__":
    engine_host.load = lambda *_, **__: {"stepping": SteppingEngine()}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
