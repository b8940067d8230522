"""A worker whose engine answers at once, so that what is measured is everything around it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from PIL import Image

from workers import __main__, engine_host
from workers.engine_host import Caption, GeneratedImage

PICTURE = Image.effect_noise((384, 384), 64).convert("RGB")


class InstantEngine:
    """Real-sized answers, no computing."""

    info = SimpleNamespace(family="none", revision="none")

    def fit_image(self, image: Image.Image) -> Image.Image:
        return image.resize((384, 384), Image.Resampling.BICUBIC)

    def caption(self, requests: Sequence[Any], **values: Any) -> list[Caption]:
        return [Caption("a caption of about ninety tokens " * 12, tuple(range(90)), "stop") for _ in requests]

    def generate(self, requests: Sequence[Any], **values: Any) -> list[GeneratedImage]:
        return [GeneratedImage(PICTURE, None) for _ in requests]


if __name__ == "__main__":
    engine_host.load = lambda *_, **__: {"instant": InstantEngine()}  # type: ignore[assignment]
    raise SystemExit(__main__.main())
