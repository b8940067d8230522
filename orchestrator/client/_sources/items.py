"""An item before it is sent: a manifest line to be, and the bytes that its images are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Region:
    """A part of a local file: an image in a tar, or all of a small file.

    file_bytes: of the whole file when it was looked at; with another size it is another file.
    """

    path: Path
    offset: int
    num_bytes: int
    file_bytes: int


File: TypeAlias = "Path | Region | bytes | str"
"""An image: a local file, a part of one, bytes, or as text a URL that the server follows."""


@dataclass(frozen=True)
class SourceItem:
    """A manifest line to be, and its images."""

    line: dict[str, Any] | str  # text where the line is not a JSON object: the server makes it that item's failure
    files: Sequence[File] = field(default=())


def failed(item_id: str | None, why: str) -> SourceItem:
    """An item that could not be read: a failure of its own, `source_unreadable`, and the others go on."""
    return SourceItem(({} if item_id is None else {"id": item_id}) | {"failure": why})
