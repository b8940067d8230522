"""An item: one input at an index from 0, as a manifest line says it and as a shard carries it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.failures import Failure
from orchestrator.domain.image_refs import BadItem, ImageNames, ImageRef, whole_number
from orchestrator.domain.jobs import (
    MAX_PROMPT_LENGTH,
    MAX_SEED,
    CaptionOptions,
    InvalidRequestValue,
    JobKind,
    Options,
    kind_of,
    options_of_item,
)
from orchestrator.domain.names import clean_message, without_surrogates
from orchestrator.domain.templates import FieldMissing, TextTooLong, is_template, name_fields, render
from orchestrator.domain.urls import is_url
from orchestrator.domain.used_ids import UsedIds

MAX_ID_LENGTH = 500
MAX_LINE_BYTES = 2**20  # of an item as a shard carries it
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode  # `json.loads` guesses an encoding for every line
_BOM = b"\xef\xbb\xbf"
_INDEX = b'{"index":'  # where `Item.as_line` begins
_PLAIN = {"id", "image"}  # all that most lines of captioning jobs have
_FIELDS = {
    JobKind.caption: {"id", "image", "prompt", "seed", "options", "fields", "failure"},
    JobKind.generate: {"id", "prompt", "seed", "options", "failure"},
}


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
        options: the job's; a prompt of theirs may be a template.
        images: what the lines may name.
        max_line_bytes: a longer line is its item's failure.
        ids_differ: no id comes twice, as where they are names of a listing; so none is remembered.
    """

    def __init__(
        self, options: Options, images: ImageNames, *, max_line_bytes: int = 2**18, ids_differ: bool = False
    ) -> None:
        self._options = options
        self._kind = kind_of(options)
        self._images = images
        self._max_line_bytes = max_line_bytes
        self._template = options.prompt if isinstance(options, CaptionOptions) and is_template(options.prompt) else None
        self._asks_alike = self._kind is JobKind.caption and self._template is None  # unless an item says otherwise
        self._used_ids = None if ids_differ else UsedIds()

    def read(self, raw_items: Iterable[object]) -> Iterator[Item]:
        """Items in order; each raw item is a dict, or bytes or text holding one JSON object."""
        for index, raw in enumerate(raw_items):
            yield self._item(index, raw)

    def _item(self, index: int, raw: object) -> Item:
        item_id = str(index)
        try:
            if isinstance(raw, (bytes, str)) and len(raw) > self._max_line_bytes:
                raise BadItem(f"the line is longer than {self._max_line_bytes} bytes (JANUS_MAX_ITEM_LINE_BYTES)")
            record = _record(raw)
            _refuse_unknown(record, _FIELDS[self._kind])
            item_id = _id(record, index)
            if "failure" in record:
                _refuse_failed(record)
            images = self._images.refs(record.get("image")) if self._kind is JobKind.caption else ()
            if self._asks_alike and record.keys() <= _PLAIN:
                item = Item(index, item_id, images)
            else:
                prompt, own = self._prompt(record, item_id), self._own_options(record)
                item = Item(index, item_id, images, prompt, _seed(record), own)
        except BadItem as error:
            return Item(index, item_id, failure=Failure(error.code, clean_message(f"items[{index}]: {error}")))
        if self._used_ids is not None and not self._used_ids.add(item_id, index):
            message = f"items[{index}]: the id {item_id!r} was used before; ids must differ within a job"
            return Item(index, item_id, failure=Failure("item_invalid", message))
        return item

    def _prompt(self, record: dict[str, Any], item_id: str) -> str | None:
        """The item's own, or the job's with the item's fields in it; None where that is the same for every item."""
        fields = record.get("fields")
        if fields is not None and not isinstance(fields, dict):
            raise BadItem("`fields` must be an object: names, and what stands for them in the job's prompt")
        if self._template is None or record.get("prompt") is not None:
            return _own_prompt(record, self._kind)
        try:
            known = name_fields(item_id) | (fields or {})
            prompt = render(self._template, known, max_length=MAX_PROMPT_LENGTH)
        except FieldMissing as error:
            raise BadItem(str(error), "field_missing") from None
        except TextTooLong as error:
            raise BadItem(str(error)) from None
        return _own_prompt({"prompt": prompt}, self._kind)

    def _own_options(self, record: dict[str, Any]) -> dict[str, Any] | None:
        value = record.get("options")
        if value is not None and not isinstance(value, dict):
            raise BadItem("`options` must be an object with the options that differ from the job's")
        try:
            options_of_item(self._options, value)
        except InvalidRequestValue as error:
            raise BadItem(str(error)) from None
        return value or None


def _record(raw: object) -> dict[str, Any]:
    if isinstance(raw, (bytes, str)):
        try:
            raw = _decode(raw if isinstance(raw, str) else raw.removeprefix(_BOM).decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise BadItem(f"the line is not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise BadItem(f"the line is a {type(raw).__name__}, not a JSON object")
    return raw


def _refuse_unknown(record: dict[str, Any], known: set[str]) -> None:
    if not record.keys() <= known:
        unknown = min(record.keys() - known)
        raise BadItem(f"unknown field {unknown[:100]!r}; an item has {', '.join(sorted(known))}")


def _id(record: dict[str, Any], index: int) -> str:
    value = record.get("id")
    if value is None:
        image = record.get("image")
        value = image if isinstance(image, str) and not _is_long_url(image) else str(index)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value or len(value) > MAX_ID_LENGTH or "\x00" in value:
        raise BadItem(f"`id` must be text of 1 to {MAX_ID_LENGTH} characters")
    return without_surrogates(value)


def _is_long_url(image: str) -> bool:
    """Signed URLs are: too long for an id, and their signature is nobody's name."""
    return is_url(image) and len(image) > MAX_ID_LENGTH


def _refuse_failed(record: dict[str, Any]) -> None:
    """A line may say that there is nothing to be had: who read a damaged source could go on to the next item."""
    failure = record.get("failure")
    if isinstance(failure, str) and failure:
        raise BadItem(failure, "source_unreadable")
    if failure is not None:
        raise BadItem("`failure` must be text: why the item could not be read")


def _own_prompt(record: dict[str, Any], kind: JobKind) -> str | None:
    value = record.get("prompt")
    if value is None and kind is JobKind.caption:
        return None
    if not isinstance(value, str) or not value.strip():
        raise BadItem("`prompt` is empty; write what the picture should show or what to ask", "prompt_empty")
    if len(value) > MAX_PROMPT_LENGTH:
        raise BadItem(f"`prompt` has {len(value)} characters; at most {MAX_PROMPT_LENGTH} are accepted")
    return without_surrogates(value)


def _seed(record: dict[str, Any]) -> int | None:
    value = record.get("seed")
    return None if value is None else whole_number("seed", value, 0, MAX_SEED)
