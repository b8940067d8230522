"""An engine that computes nothing and answers rightly, a few rows a turn; and dies of a poisoned prompt."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from types import SimpleNamespace

from PIL import Image

from janus_core.processing.images import ImageSettings
from tests.chaos.answers import POISON, caption_of, colour_of
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest

STEP = "CHAOS_STEP_SECONDS"  # how long a turn takes: work must last as long as the storm does
BOOK = "CHAOS_BOOK"  # a file that gets a line for each answer, where a test counts them
ROWS = 4


@dataclass(eq=False)
class Row:
    prompt: str
    answer: Caption | GeneratedImage
    error: None = None
    is_cancelled: bool = False
    begun_at: float | None = None


class FastEngine:
    """As much of janus_core's Engine as a worker uses."""

    images = ImageSettings(16, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
    info = SimpleNamespace(name="chaos", family="none", revision="none", device="cpu", dtype="none", quantize="none")
    max_rows = ROWS

    def __init__(self) -> None:
        self._started: list[Row] = []
        self._step_seconds = float(os.environ.get(STEP, "0"))
        book = os.environ.get(BOOK)
        self._book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if book else None

    @property
    def is_idle(self) -> bool:
        return not self._started

    @property
    def num_running(self) -> int:
        return len(self._started)

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> Row:
        if isinstance(request, CaptionRequest):
            (image,) = request.image if isinstance(request.image, list) else [request.image]
            text = caption_of(request.prompt, image.getpixel((8, 8)), request.seed)
            return Row(request.prompt, Caption(text, (1, 2, 3), "stop"))
        picture = Image.new("RGB", (16, 16), colour_of(request.prompt, request.seed))
        return Row(request.prompt, GeneratedImage(picture, None))

    def start(self, row: Row) -> None:
        if row.prompt == POISON:
            os._exit(139)
        self._started.append(row)

    def turn(self) -> list[Row]:
        time.sleep(self._step_seconds)
        left, self._started = self._started[:ROWS], self._started[ROWS:]
        if self._book is not None:
            os.write(self._book, "".join(f"{row.prompt}\n" for row in left).encode())
        return left
