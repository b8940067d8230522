"""An image file's bytes to RGB, within limits, so that bad input costs its own item.

Decoding does what the reference does (`Image.open(...).convert("RGB")`): EXIF orientation is not applied, transparency
is dropped, of an animation the first frame counts. One thing differs: 16-bit grey is scaled to 8 bits, where Pillow's
own conversion would turn everything above 255 white.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from workers.errors import BadInput

TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
MAX_JPEG_SCANS = 100  # progressive encoders write about ten; each is a pass over the whole picture
MAX_JPEG_SEGMENTS = 1000
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # but for those that stand inside a scan or alone
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode_image(data: bytes, *, place: str, max_pixels: int) -> Image.Image:
    """Decode to RGB; width and height are checked before a single pixel is decoded. Raises BadInput."""
    Image.MAX_IMAGE_PIXELS = None  # ours is the limit below, and it is an error rather than a warning
    if not data:
        raise BadInput("image_unreadable", f"{place} is empty (0 bytes).")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, place, max_pixels)
            _check_structure(image, data, place, max_pixels)
            image.load()
            return _to_rgb(image)
    except UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise BadInput("image_unreadable", f"{place} is not an image of an accepted format ({kinds}).") from None
    except BadInput:
        raise
    except MemoryError:
        raise BadInput(
            "image_too_large",
            f"{place} takes more memory to decode than this server gives to one image (JANUS_DECODE_MEMORY_BYTES). "
            "Shrink it or save it anew.",
        ) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadInput("image_unreadable", f"{place} cannot be decoded: {error}. Is the file complete?") from error


def _check_size(image: Image.Image, place: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadInput(
            "image_too_large",
            f"{place} is {width} x {height} px ({width * height / 1e6:.0f} MP); this server accepts "
            f"{max_pixels / 1e6:.0f} MP (JANUS_MAX_IMAGE_PIXELS). Resize it.",
        )


def _check_structure(image: Image.Image, data: bytes, place: str, max_pixels: int) -> None:
    """Refuse files whose insides are far larger, or far more broken up, than any honest picture's."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        tile_pixels = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
        if tile_pixels > max(max_pixels, 2**20):
            raise BadInput(
                "image_too_large", f"{place} is stored in tiles of {tile_pixels / 1e6:.0f} MP. Save it anew."
            )
    if image.format in ("JPEG", "MPO"):  # several JPEGs in one file, of which the first counts
        scans, segments = _count_jpeg_parts(data)
        if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
            raise BadInput(
                "image_unreadable",
                f"{place} is a JPEG of more than {MAX_JPEG_SCANS} scans or {MAX_JPEG_SEGMENTS} metadata segments. "
                "Save it anew.",
            )


def _count_jpeg_parts(data: bytes) -> tuple[int, int]:
    """(scans, application segments) up to the end of the image or to the first that is too many.

    What comes behind the image, such as the film of a motion photo, is not looked at.
    """
    scans, segments, place = 0, 0, 2
    while scans <= MAX_JPEG_SCANS and segments <= MAX_JPEG_SEGMENTS:
        marker = JPEG_MARKER.search(data, place)
        if marker is None or marker.group() == b"\xff\xd9":
            break
        kind, length = marker.group()[1], int.from_bytes(data[marker.end() : marker.end() + 2])
        scans += kind == 0xDA
        segments += 0xE0 <= kind <= 0xEF
        place = marker.end() + max(length, 2)
    return scans, segments


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
