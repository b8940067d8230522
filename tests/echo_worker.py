"""A worker whose engine says what it was asked: the colour in the middle of each picture, and the prompt."""

from __future__ import annotations

from PIL import Image

from tests.fake_engine import FakeEngine, Row
from workers import __main__, engine_host
from workers.engine_host import Caption, CaptionRequest, GeneratedImage, GenerateRequest


class EchoEngine(FakeEngine):
    """Answers at once."""

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str, order: int) -> Row:
        if isinstance(request, GenerateRequest):
            return Row(answer=GeneratedImage(Image.new("RGB", (8, 8)), None))
        images = request.image if isinstance(request.image, list) else [request.image]
        colours = [image.getpixel((image.width // 2, image.height // 2)) for image in images]
        return Row(answer=Caption(f"{colours} {request.prompt}", (1,), "stop"))

    def turn(self) -> list[Row]:
        left, self.started = self.started, []
        return left


if __name__ == "__main__":
    engine_host.load = lambda *_, **__: {"echo": EchoEngine("echo", image_size=28)}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
