"""An engine that computes nothing and answers rightly, a few rows a turn; and dies of a poisoned prompt."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from PIL import Image

from tests.chaos.answers import POISON, caption_of, colour_of
from tests.fake_engine import FakeEngine, Row
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected

STEP = "CHAOS_STEP_SECONDS"  # how long a turn takes: work must last as long as the storm does
BOOK = "CHAOS_BOOK"  # a file that gets a line for each answer, where a test counts them
ROWS = 4


@dataclass(eq=False, kw_only=True)
class KnownRow(Row):
    prompt: str


class FastEngine(FakeEngine):
    def __init__(self) -> None:
        super().__init__("chaos", image_size=16, max_rows=ROWS)
        self._step_seconds = float(os.environ.get(STEP, "0"))
        book = os.environ.get(BOOK)
        self._book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if book else None

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> KnownRow:
        if isinstance(request, CaptionRequest):
            (image,) = request.image if isinstance(request.image, list) else [request.image]
            text = caption_of(request.prompt, image.getpixel((8, 8)), request.seed)
            return KnownRow(prompt=request.prompt, answer=Caption(text, (1, 2, 3), "stop"))
        picture = Image.new("RGB", (16, 16), colour_of(request.prompt, request.seed))
        return KnownRow(prompt=request.prompt, answer=GeneratedImage(picture, None))

    def start(self, row: KnownRow) -> None:
        if row.prompt == POISON:
            os._exit(139)
        super().start(row)

    def turn(self) -> list[KnownRow]:
        time.sleep(self._step_seconds)
        gone = [row for row in self.started if row.is_cancelled]
        for row in gone:
            row.answer = Rejected("cancelled", "The request was cancelled before it was done.")
        wanted = [row for row in self.started if not row.is_cancelled]
        left, self.started = wanted[:ROWS], wanted[ROWS:]
        if self._book is not None:
            os.write(self._book, "".join(f"{row.prompt}\n" for row in left).encode())
        return gone + left
