"""A worker whose engine answers at once, so that what is measured is everything around it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from PIL import Image

from janus_core.processing.images import ImageSettings
from workers import __main__, engine_host
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest

PICTURE = Image.effect_noise((384, 384), 64).convert("RGB")


@dataclass(eq=False)
class Row:
    answer: Caption | GeneratedImage
    error: None = None
    begun_at: None = None
    is_cancelled: bool = False


class InstantEngine:
    """Real-sized answers, no computing."""

    images = ImageSettings(384, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
    info = SimpleNamespace(name="instant", family="none", revision="none", device="cpu", dtype="none", quantize="none")
    max_rows = 8

    def __init__(self) -> None:
        self._started: list[Row] = []

    @property
    def is_idle(self) -> bool:
        return not self._started

    @property
    def num_running(self) -> int:
        return len(self._started)

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> Row:
        if isinstance(request, CaptionRequest):
            return Row(Caption("a caption of about ninety tokens " * 12, tuple(range(90)), "stop"))
        return Row(GeneratedImage(PICTURE, None))

    def start(self, row: Row) -> None:
        self._started.append(row)

    def turn(self) -> list[Row]:
        left, self._started = self._started, []
        return left


if __name__ == "__main__":
    engine_host.load = lambda *_, **__: {"instant": InstantEngine()}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
