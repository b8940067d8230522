"""An item: one input at an index from 0, as a manifest line says it and as a shard carries it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.failures import Failure
from orchestrator.domain.jobs import (
    MAX_PROMPT_LENGTH,
    MAX_SEED,
    InvalidRequestValue,
    JobKind,
    Options,
    kind_of,
    options_of_item,
)
from orchestrator.domain.urls import MAX_URL_LENGTH, is_url

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_ID_LENGTH = 500
MAX_MESSAGE_LENGTH = 2000
MAX_LINE_BYTES = 2**20  # of an item as a shard carries it
MAX_IMAGES_PER_PROMPT = 16
MAX_OBJECT_BYTES = 5 * 2**40  # of S3
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f]")
_NO_STEP = frozenset(("", ".", ".."))  # of a path that stays below its prefix
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_INDEX = b'{"index":'  # where `Item.as_line` begins
_PART_FIELDS = ("object", "offset", "num_bytes")
_FIELDS = {
    JobKind.caption: {"id", "image", "prompt", "seed", "options"},
    JobKind.generate: {"id", "prompt", "seed", "options"},
}


@dataclass(frozen=True)
class ImageRef:
    """Where an image's bytes are: an object, a part of one that holds many, or a URL where the server fetches them."""

    key: str
    offset: int = 0
    num_bytes: int | None = None  # None: the whole object

    def as_json(self) -> str | list[str | int]:
        return self.key if self.num_bytes is None else [self.key, self.offset, self.num_bytes]

    @classmethod
    def from_json(cls, value: str | list[Any]) -> ImageRef:
        return cls(value) if isinstance(value, str) else cls(*value)


@dataclass(frozen=True)
class Item:
    """What a worker is asked to do, or the failure that its line already earned."""

    index: int
    id: str
    images: tuple[ImageRef, ...] = ()
    prompt: str | None = None  # None takes the job's
    seed: int | None = None
    options: dict[str, Any] | None = None  # those that are not the job's
    failure: Failure | None = None

    def as_line(self) -> str:
        record: dict[str, Any] = {"index": self.index, "id": self.id}
        if self.failure is not None:
            record["failure"] = {"code": self.failure.code, "message": self.failure.message}
        else:
            images = [image.as_json() for image in self.images]
            record |= {"images": images, "prompt": self.prompt, "seed": self.seed}
            if self.options:
                record["options"] = self.options
        return _encode(record)

    @staticmethod
    def index_of(line: bytes) -> int:
        """The index of an item's line, without reading the rest."""
        return int(line[len(_INDEX) : line.index(b",")])

    @classmethod
    def from_line(cls, line: str | bytes) -> Item:
        record = json.loads(line)
        failure = record.get("failure")
        return cls(
            record["index"],
            record["id"],
            tuple(ImageRef.from_json(image) for image in record.get("images", ())),
            record.get("prompt"),
            record.get("seed"),
            record.get("options"),
            Failure(failure["code"], failure["message"]) if failure else None,
        )


class ItemReader:
    """Turns raw lines into items; a bad line costs its own item and nothing else.

    Args:
        options: the job's.
        image_prefix: object prefix that image names are relative to, ending in `/`; empty where the job has no upload.
        max_line_bytes: a longer line is its item's failure.
        allow_urls: whether an image may be a URL; where it leads is looked at by who fetches it.
    """

    def __init__(
        self, options: Options, image_prefix: str, *, max_line_bytes: int = 2**18, allow_urls: bool = False
    ) -> None:
        self._options = options
        self._kind = kind_of(options)
        self._allow_urls = allow_urls
        self._max_line_bytes = max_line_bytes
        self._image_prefix = image_prefix
        self._seen: set[int] = set()  # hashes of ids: 100 bytes an item instead of the id itself

    def read(self, raw_items: Iterable[object]) -> Iterator[Item]:
        """Items in order; each raw item is a dict, or bytes or text holding one JSON object."""
        for index, raw in enumerate(raw_items):
            yield self._item(index, raw)

    def _item(self, index: int, raw: object) -> Item:
        item_id = str(index)
        try:
            if isinstance(raw, bytes | str) and len(raw) > self._max_line_bytes:
                raise _BadItem(f"the line is longer than {self._max_line_bytes} bytes (JANUS_MAX_ITEM_LINE_BYTES)")
            record = _record(raw)
            _refuse_unknown(record, _FIELDS[self._kind])
            item_id = _id(record, index)
            images = self._images(record) if self._kind is JobKind.caption else ()
            own = self._own_options(record)
            item = Item(index, item_id, images, _prompt(record, self._kind), _seed(record), own)
        except _BadItem as error:
            return Item(index, item_id, failure=Failure(error.code, clean_message(f"items[{index}]: {error}")))
        if hash(item_id) in self._seen:
            message = f"items[{index}]: the id {item_id!r} was used before; ids must differ within a job"
            return Item(index, item_id, failure=Failure("item_invalid", message))
        self._seen.add(hash(item_id))
        return item

    def _own_options(self, record: dict[str, Any]) -> dict[str, Any] | None:
        value = record.get("options")
        if value is not None and not isinstance(value, dict):
            raise _BadItem("`options` must be an object with the options that differ from the job's")
        try:
            options_of_item(self._options, value)
        except InvalidRequestValue as error:
            raise _BadItem(str(error)) from None
        return value or None

    def _images(self, record: dict[str, Any]) -> tuple[ImageRef, ...]:
        value = record.get("image")
        values: list[Any] = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str | dict) for each in values):
            raise _BadItem("`image` must be the name of an uploaded image, a part of an object, or a list of them")
        if len(values) > MAX_IMAGES_PER_PROMPT:
            raise _BadItem(f"`image` lists {len(values)} images; at most {MAX_IMAGES_PER_PROMPT} fit one prompt")
        return tuple(self._image(each) for each in values)

    def _image(self, value: str | dict[str, Any]) -> ImageRef:
        if isinstance(value, str) and is_url(value):
            return ImageRef(self._allowed_url(value))
        if not self._image_prefix:
            raise _BadItem("`image` names an upload, but the job has none; create one with POST /v1/uploads")
        if isinstance(value, str):
            return ImageRef(self._image_prefix + _safe_name(value))
        name, offset, num_bytes = (value.get(field) for field in _PART_FIELDS)
        if set(value) != set(_PART_FIELDS) or not isinstance(name, str):
            raise _BadItem(f"a part of an object has the fields {', '.join(_PART_FIELDS)} and no others")
        return ImageRef(
            self._image_prefix + _safe_name(name),
            _whole_number("image.offset", offset, 0, MAX_OBJECT_BYTES),
            _whole_number("image.num_bytes", num_bytes, 1, MAX_OBJECT_BYTES),
        )

    def _allowed_url(self, url: str) -> str:
        if not self._allow_urls:
            raise _BadItem(
                "`image` is a URL, and this server fetches none (JANUS_ALLOW_IMAGE_URLS); upload the image",
                "url_refused",
            )
        if len(url) > MAX_URL_LENGTH:
            raise _BadItem(f"the URL has {len(url)} characters; at most {MAX_URL_LENGTH} are accepted", "url_refused")
        return _without_surrogates(url)


def is_safe_name(name: str) -> bool:
    """True for a relative path that stays below its prefix and that every S3 accepts."""
    if name != _without_surrogates(name):
        return False
    if _UNSAFE.search(name) or not _NO_STEP.isdisjoint(name.split("/")):
        return False
    return len(name.encode("utf-8", "replace")) <= 700


def clean_message(text: str) -> str:
    """What a row and a line of JSON can hold: no NUL, no half surrogates, and not for ever."""
    return _without_surrogates(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"))[:MAX_MESSAGE_LENGTH]


class _BadItem(Exception):
    def __init__(self, message: str, code: str = "item_invalid") -> None:
        super().__init__(message)
        self.code = code


def _record(raw: object) -> dict[str, Any]:
    if isinstance(raw, bytes | str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _BadItem(f"the line is not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise _BadItem(f"the line is a {type(raw).__name__}, not a JSON object")
    return raw


def _refuse_unknown(record: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(record) - known)
    if unknown:
        raise _BadItem(f"unknown field {unknown[0][:100]!r}; an item has {', '.join(sorted(known))}")


def _id(record: dict[str, Any], index: int) -> str:
    value = record.get("id")
    if value is None:
        image = record.get("image")
        value = image if isinstance(image, str) and not _is_long_url(image) else str(index)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or len(value) > MAX_ID_LENGTH or "\x00" in value:
        raise _BadItem(f"`id` must be text of 1 to {MAX_ID_LENGTH} characters")
    return _without_surrogates(value)


def _is_long_url(image: str) -> bool:
    """Signed URLs are: too long for an id, and their signature is nobody's name."""
    return is_url(image) and len(image) > MAX_ID_LENGTH


def _prompt(record: dict[str, Any], kind: JobKind) -> str | None:
    value = record.get("prompt")
    if value is None and kind is JobKind.caption:
        return None
    if not isinstance(value, str) or not value.strip():
        raise _BadItem("`prompt` is empty; write what the picture should show or what to ask", "prompt_empty")
    if len(value) > MAX_PROMPT_LENGTH:
        raise _BadItem(f"`prompt` has {len(value)} characters; at most {MAX_PROMPT_LENGTH} are accepted")
    return _without_surrogates(value)


def _seed(record: dict[str, Any]) -> int | None:
    value = record.get("seed")
    return None if value is None else _whole_number("seed", value, 0, MAX_SEED)


def _whole_number(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _BadItem(f"`{name}` must be a whole number from {least} to {most}")
    return value


def _safe_name(name: str) -> str:
    if not is_safe_name(name):
        raise _BadItem(f"{name[:200]!r} is not a relative name below the upload")
    return name


def _without_surrogates(text: str) -> str:
    """JSON may spell half of a surrogate pair, which UTF-8 and Postgres refuse."""
    return text.encode("utf-8", "replace").decode()
