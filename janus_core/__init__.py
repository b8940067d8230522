"""Janus, Janus-Pro and JanusFlow: captions and images from one set of weights.

    from janus_core import CaptionRequest, load_engine

    engine = load_engine("janus-pro-1b")
    engine.caption([CaptionRequest(image=pil, prompt="Describe this image.")])

Importing this package loads no torch and does no work; `load_engine` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected
from janus_core.errors import JanusCoreError

if TYPE_CHECKING:
    from janus_core.engine.engine import Engine, EngineInfo, load_engine

__all__ = [
    "Caption",
    "CaptionRequest",
    "Engine",
    "EngineInfo",
    "GenerateRequest",
    "GeneratedImage",
    "JanusCoreError",
    "Rejected",
    "load_engine",
]


def __getattr__(name: str) -> Any:
    if name in {"Engine", "EngineInfo", "load_engine"}:
        from janus_core.engine import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
