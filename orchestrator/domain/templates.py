"""A prompt with places for an item's fields: `A photo tagged {tags}. Describe it.`

A text is a template if it holds a `{word}`. In a template `{{` is a brace and so is `}}`; any other brace stays. A word
is replaced by a field's text and by nothing else: no attributes, no formats, and what is put in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from orchestrator.domain.errors import JanusError

_WORD = r"\{(\w[\w .-]{0,99})\}"
_HAS_WORD = re.compile(_WORD)
_PARTS = re.compile(rf"\{{\{{|\}}\}}|{_WORD}")


class FieldMissing(JanusError):
    """The template names a field that there is not, or that is no text."""


class TextTooLong(JanusError):
    """More characters than are wanted."""


def is_template(text: str) -> bool:
    return _HAS_WORD.search(text) is not None


def words_of(template: str) -> frozenset[str]:
    """The fields that a template names."""
    return (
        frozenset(found[1] for found in _PARTS.finditer(template) if found[1]) if is_template(template) else frozenset()
    )


def render(template: str, fields: Mapping[str, Any], *, max_length: int) -> str:
    """The text with the fields in their places; one that is no template stays as it is.

    Raises FieldMissing, TextTooLong: before more than `max_length` characters and one field are put together.
    """
    if not is_template(template):
        return template
    pieces, length, end = list[str](), 0, 0
    for found in _PARTS.finditer(template):
        piece = _text_of(found[1], fields) if found[1] else found[0][0]
        pieces += template[end : found.start()], piece
        length += found.start() - end + len(piece)
        end = found.end()
        if length > max_length:
            break
    pieces.append(template[end:])
    if length + len(pieces[-1]) > max_length:
        raise TextTooLong(f"the prompt with its fields has more than {max_length} characters")
    return "".join(pieces)


def name_fields(item_id: str) -> dict[str, str]:
    """The fields that every item has, from its id: of `cats/2024/a.jpg` the name is `a`, the folder `2024`."""
    path = PurePosixPath(item_id)
    return {"id": item_id, "name": path.stem, "folder": path.parent.name}


def _text_of(word: str, fields: Mapping[str, Any]) -> str:
    value = fields.get(word)
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(map(str, value))
    if isinstance(value, str | int | float):
        return str(value)
    if word in fields:
        raise FieldMissing(f"the field {word!r} is {_kind(value)}, not text, a number or a list of them")
    known = ", ".join(sorted(fields))[:300]
    raise FieldMissing(f"the prompt names the field {word!r}; this item has {known}. (A brace is written {{{{.)")


def _kind(value: object) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"
