"""The record of an item that got no result: a code for programs, a sentence for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Every code that an item's failure may carry, with what it tells its reader.
FAILURE_CODES = {
    "item_invalid": "the line is not an item: bad JSON, a missing or wrong field, or an id that was used before",
    "source_unreadable": "the item could not be read: a damaged tar, an empty cell; the message says what",
    "field_missing": "the prompt names a field that the item does not have",
    "image_refused": "the store does not hand out the object, however often it is asked",
    "image_missing": "the object that the item names is not in the store",
    "image_too_large": "more bytes, pixels, memory or decoding time than this server allows; the message says which",
    "image_unreadable": "the bytes are not a complete image of an accepted format",
    "url_refused": "the image's URL, or where it leads, is not one that this server fetches or reads",
    "url_unreachable": "the image's URL gave no image in time; the message says what it did instead",
    "prompt_empty": "the prompt is empty or blank",
    "request_rejected": "the engine cannot serve the request; the message says which limit it broke",
    "engine_error": "the model raised an error on this item alone",
    "worker_crashed": "workers died each time they held this item",
}


@dataclass(frozen=True)
class Failure:
    """Why an item has no result."""

    code: str
    message: str
    attempts: int = 1

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
