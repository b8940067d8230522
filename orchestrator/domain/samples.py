"""A tar as WebDataset writes it: files of one key stand together, images beside a `.json` or `.txt` about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from orchestrator.domain.names import IMAGE_SUFFIXES
from orchestrator.domain.tars import Member, ReadAt, TarDamaged, read_members

MAX_SAMPLE_FILES = 1000
MAX_TEXT_BYTES = 64 * 2**10  # of the `.json` and `.txt` of a sample


@dataclass(frozen=True)
class TarImage:
    """An image of a tar: where it lies, and the fields of its sample; or, with `trouble`, why it cannot be read.

    The last one may stand for the rest of a damaged tar; it has no name.
    """

    name: str
    offset: int = 0
    num_bytes: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""


def read_samples(read_at: ReadAt, tar_bytes: int, *, with_fields: bool) -> Iterator[TarImage]:
    """The images of a tar in order.

    Args:
        tar_bytes: the size of the tar.
        with_fields: read the texts too; of `key.json` each entry is a field, `key.txt` is the field `txt`.
    """
    damage: list[TarDamaged] = []
    for _, files in groupby(_until_damage(read_at, tar_bytes, damage), lambda member: _key(member.name)):
        while sample := list(islice(files, MAX_SAMPLE_FILES)):
            fields = _fields(sample, read_at) if with_fields else {}
            for member in sample:
                if member.name.lower().endswith(IMAGE_SUFFIXES):
                    trouble = member.trouble or ("" if member.num_bytes else "it is empty")
                    yield TarImage(member.name.removeprefix("./"), member.offset, member.num_bytes, fields, trouble)
    for error in damage:
        yield TarImage("", error.offset, trouble=f"{error}; what comes after it cannot be read")


def _until_damage(read_at: ReadAt, tar_bytes: int, damage: list[TarDamaged]) -> Iterator[Member]:
    try:
        yield from read_members(read_at, tar_bytes)
    except TarDamaged as error:
        damage.append(error)


def _key(name: str) -> str:
    """What the files of a sample have in common: `a.b/c.left.jpg` has the key `a.b/c`."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + (base.partition(".")[0] or base)


def _fields(sample: list[Member], read_at: ReadAt) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    bytes_left = MAX_TEXT_BYTES
    for member in sample:
        suffix = member.name.lower().rpartition(".")[2]
        if suffix not in ("json", "txt") or member.trouble or member.num_bytes > bytes_left:
            continue
        bytes_left -= member.num_bytes
        data = read_at(member.offset, member.num_bytes)
        if suffix == "txt":
            fields["txt"] = data.decode("utf-8", "replace").strip()
        else:
            fields |= _entries(data)
    return fields


def _entries(data: bytes) -> dict[str, Any]:
    """What a `.json` says; nothing where it is no object, so that a prompt that needs it says what is missing."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
