"""A worker whose engine answers at once, so that what is measured is everything around it."""

from __future__ import annotations

import os

from PIL import Image

from tests.fake_engine import FakeEngine, Row
from workers import __main__, engine_host
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest

PICTURE = Image.effect_noise((384, 384), 64).convert("RGB")


class InstantEngine(FakeEngine):
    """Real-sized answers, no computing."""

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> Row:
        if isinstance(request, CaptionRequest):
            return Row(answer=Caption("a caption of about ninety tokens " * 12, tuple(range(90)), "stop"))
        return Row(answer=GeneratedImage(PICTURE, None))

    def turn(self) -> list[Row]:
        left, self.started = self.started, []
        return left


if __name__ == "__main__":
    engine = InstantEngine(
        "instant", image_size=int(os.environ.get("IMAGE_SIZE", "384")), max_rows=int(os.environ.get("MAX_ROWS", "8"))
    )
    engine_host.load = lambda *_, **__: {"instant": engine}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
