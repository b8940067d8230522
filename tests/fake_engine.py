"""As much of janus_core's Engine as a worker uses, without a model: for tests and benchmarks of what is around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from janus_core.processing.images import ImageSettings
from workers.engine_host import Caption, GeneratedImage, Rejected


@dataclass(eq=False, kw_only=True)
class Row:
    """A request on its way; its engine may add what it goes by."""

    answer: Caption | GeneratedImage | Rejected | None = None
    error: Exception | None = None
    is_cancelled: bool = False
    begun_at: float | None = None


class FakeEngine(ABC):
    """image_size: of what decoders make, in pixels. Rows lie in `started` until a turn takes them out."""

    def __init__(self, name: str, *, image_size: int = 384, max_rows: int = 8) -> None:
        self.info = SimpleNamespace(
            name=name,
            family="none",
            revision="none",
            device="cpu",
            dtype="none",
            quantize="none",
            image_size=image_size,
        )
        self.images = ImageSettings(image_size, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
        self.max_rows = max_rows
        self.started: list[Any] = []

    @property
    def is_idle(self) -> bool:
        return not self.started

    @property
    def num_running(self) -> int:
        return len(self.started)

    def start(self, row: Any) -> None:
        self.started.append(row)

    @abstractmethod
    def prepare(self, request: Any, *, job: str, order: int) -> Any: ...

    @abstractmethod
    def turn(self) -> list[Any]:
        """The rows that left."""
