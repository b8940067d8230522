"""From a picture to the vision tower's input, and from the decoder's output to a picture.

Source: deepseek-ai/Janus@1daa72f janus/models/image_processing_vlm.py:67-208. The new side is truncated, not rounded
as the port in transformers does: they disagree for about half of all aspect ratios.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from janus_core.errors import ConfigInvalid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ImageSettings:
    """What preprocessor_config.json says; `image_size` and `min_size` in pixels."""

    image_size: int
    min_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale_factor: float
    normalize: bool


def read_image_settings(folder: Path) -> ImageSettings:
    """Read preprocessor_config.json (official or Hugging Face form), or its section in processor_config.json.

    Raises ConfigInvalid: absent or garbled. The official class default (CLIP's mean) is not the published value, so
    there is none here.
    """
    raw = _read_json(folder / "preprocessor_config.json")
    if raw is None:
        raw = (_read_json(folder / "processor_config.json") or {}).get("image_processor")
    if raw is None:
        raise ConfigInvalid(f"{folder} has no preprocessor_config.json")
    try:
        size = raw["size"]["height"] if "size" in raw else raw["image_size"]
        return ImageSettings(
            image_size=int(size),
            min_size=int(raw.get("min_size", 14)),
            mean=_three(raw["image_mean"]),
            std=_three(raw["image_std"]),
            rescale_factor=float(raw.get("rescale_factor", 1 / 255)),
            normalize=bool(raw.get("do_normalize", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigInvalid(f"the image settings in {folder} lack or garble {error}") from error


def fit(image: Image.Image, settings: ImageSettings) -> Image.Image:
    """Resize by PIL's bicubic and pad to a square with the mean colour; a picture that was fitted stays as it is.

    Returns: RGB of image_size x image_size (of min_size where that is more), without the original's metadata.
    Raises: what Pillow raises on a truncated picture (OSError and others), ValueError on an empty one.
    """
    image = image.convert("RGB")
    longest = max(image.size)
    if min(image.size) < 1:
        raise ValueError(f"the image is {image.width} x {image.height} px")
    width, height = (max(int(side / longest * settings.image_size), settings.min_size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    image.info.clear()  # EXIF data and colour profiles can be larger than the picture, which may wait for long
    if width == height:
        return image
    side = max(width, height)
    red, green, blue = (int(mean * 255) for mean in settings.mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def scale(picture: Image.Image, settings: ImageSettings) -> NDArray[np.float32]:
    """The bytes of a fitted picture as float32 [3, image_size, image_size]."""
    pixels = (np.asarray(picture).astype(np.float64) * settings.rescale_factor).astype(np.float32)
    if settings.normalize:
        pixels -= np.array(settings.mean, np.float32)
        pixels /= np.array(settings.std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def prepare(image: Image.Image, settings: ImageSettings) -> NDArray[np.float32]:
    """The vision tower's input for any picture; raises as `fit`."""
    return scale(fit(image, settings), settings)


def to_images(pixels_BCHW: Tensor) -> list[Image.Image]:
    """The decoder's output, nominally [-1, 1], as RGB pictures; truncated to uint8 as the official code does."""
    bytes_BHWC = ((pixels_BCHW.float() + 1) / 2 * 255).clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
    return [Image.fromarray(picture) for picture in bytes_BHWC]


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigInvalid(f"{path} is not JSON: {error}") from error
    return raw if isinstance(raw, dict) else None
