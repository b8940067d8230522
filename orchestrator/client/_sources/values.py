"""What a cell may hold: an image in one of many forms, and a value that JSON can carry."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from orchestrator.client._sources.items import File
from orchestrator.domain.urls import is_url

_AS_THEY_ARE = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # modes of Pillow that a PNG has too


class NoImage(Exception):
    """Why a value is no image, in words."""


def is_picture(value: object) -> bool:
    """A picture of Pillow's, which need not be installed to find out."""
    return any(f"{kind.__module__}.{kind.__name__}" == "PIL.Image.Image" for kind in type(value).__mro__)


def files_of(value: Any, folder: Path) -> list[File]:
    """The images of a cell: a name relative to `folder`, a URL, bytes, a picture, `{"bytes", "path"}`, or a list.

    Raises NoImage.
    """
    if isinstance(value, list | tuple):
        if not value:
            raise NoImage("is an empty list")
        return [file for each in value for file in files_of(each, folder)]
    return [_file_of(value, folder)]


def _file_of(value: Any, folder: Path) -> File:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str | Path) and str(value).strip():
        return str(value) if is_url(str(value)) else folder / value
    if isinstance(value, bytes | bytearray | memoryview) and len(value):
        return bytes(value)
    if is_picture(value):
        return _as_png(value)
    is_empty = not isinstance(value, int | float) or plain(value) is None
    raise NoImage("is empty" if is_empty else f"is {str(value)[:60]}, no image")


def _as_png(picture: Any) -> bytes:
    try:
        data = io.BytesIO()
        (picture if picture.mode in _AS_THEY_ARE else picture.convert("RGB")).save(data, "PNG", compress_level=1)
    except Exception as error:  # Pillow reads a file when it is first asked for, and raises nearly anything
        raise NoImage(f"cannot be read ({type(error).__name__}: {error})") from None
    return data.getvalue()


def plain(value: Any) -> Any:
    """As JSON has it: numbers of numpy are numbers, what is not a number is nothing, everything else is text."""
    if hasattr(value, "tolist"):  # of numpy, a number or an array
        value = value.tolist()
    if value is None or value != value or isinstance(value, str | bool | int):
        return None if value is not None and value != value else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)
