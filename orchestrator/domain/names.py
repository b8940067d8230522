"""Names of objects and texts of strangers: what is safe below a prefix, and what a row and a line of JSON can hold."""

from __future__ import annotations

import re

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_NAME_BYTES = 700  # of an object, below its prefix
MAX_MESSAGE_LENGTH = 2000
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f]")
_NO_STEP = frozenset(("", ".", ".."))  # of a path that stays below its prefix


def is_safe_name(name: str) -> bool:
    """True for a relative path that stays below its prefix and that every S3 accepts."""
    if name != without_surrogates(name):
        return False
    if _UNSAFE.search(name) or not _NO_STEP.isdisjoint(name.split("/")):
        return False
    return len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES


def clean_message(text: str) -> str:
    """What a row and a line of JSON can hold: no NUL, no half surrogates, and not for ever."""
    return without_surrogates(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))[:MAX_MESSAGE_LENGTH]


def without_surrogates(text: str) -> str:
    """JSON may spell half of a surrogate pair, which UTF-8 and Postgres refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
