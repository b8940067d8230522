"""A tar as a row of headers: where in it each file lies. Nothing is extracted, and of data no byte is looked at.

The standard library's tarfile is not used, as these tars come from strangers: it reads an extended header into memory
whatever size it claims (one of 600 MB took 1.2 GB; Python 3.11.7), keeps every member, and in versions in use loops on
a negative size (CVE-2025-8194).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.domain.errors import JanusError

BLOCK = 512
MAX_HEADERS = 1_000_000
MAX_EXTENSION_BYTES = 64 * 2**10  # of a long name or of pax records
MAX_NAME_LENGTH = 1000
MAX_DATA_BYTES = 5 * 2**40
_FILE, _SPARSE, _PAX, _PAX_OF_ALL, _LONG_NAME, _LONG_LINK = (b"0", b"\x00", b"7"), b"S", b"x", b"g", b"L", b"K"
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_OCTAL = re.compile(rb"[ \x00]*([0-7]*)[ \x00]*")

ReadAt = Callable[[int, int], bytes]
"""The bytes from an offset on, so many or as many as there are."""


class TarDamaged(JanusError):
    """From here on nothing can be read; `offset` is where."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True)
class Member:
    """A regular file of a tar; `trouble` says why its bytes are not all there, in words."""

    name: str
    offset: int
    num_bytes: int
    trouble: str = ""


def read_members(read_at: ReadAt, tar_bytes: int) -> Iterator[Member]:
    """The regular files in order; others are left out.

    Args:
        tar_bytes: the size of the tar; a file that would go beyond is cut.
    Raises TarDamaged: after the files that come before.
    """
    offset, name, size = 0, "", None
    for _ in range(MAX_HEADERS):
        header = read_at(offset, BLOCK)
        if not header or not header.strip(b"\x00"):
            return  # without an end mark too, which some writers forget
        if len(header) < BLOCK:
            raise TarDamaged(f"the tar ends within a header, at byte {offset}", offset)
        kind, stored = header[156:157], _size_of(header, offset)
        data = offset + BLOCK
        if kind in (_PAX, b"X", _PAX_OF_ALL, _LONG_NAME, _LONG_LINK):
            if stored > MAX_EXTENSION_BYTES:
                raise TarDamaged(f"the header at byte {offset} claims an extension of {stored} bytes", offset)
            body = read_at(data, stored)
            if kind == _LONG_NAME:
                name = _text(body)
            elif kind in (_PAX, b"X"):
                name, size = _pax(body, offset, name)
            offset = _end(data, stored)
            continue
        if kind in _WITHOUT_DATA:
            stored = 0
        elif size is not None:
            stored = size
        own_name, trouble = name or _name_of(header), ""
        if kind == _SPARSE:
            data, trouble = _after_sparse_map(read_at, header, data), "it is stored as a sparse file"
        if data + stored > tar_bytes:
            trouble = f"the tar ends within it: {max(0, tar_bytes - data)} of {stored} bytes are there"
        if kind in (*_FILE, _SPARSE) and not own_name.endswith("/"):
            yield Member(own_name, data, stored, trouble)
        offset, name, size = _end(data, stored), "", None
    raise TarDamaged(f"the tar has more than {MAX_HEADERS} headers", offset)


def _end(data: int, num_bytes: int) -> int:
    return data + -(-num_bytes // BLOCK) * BLOCK


def _size_of(header: bytes, offset: int) -> int:
    """Of a header whose checksum is right. Raises TarDamaged."""
    told, counted = _number(header[148:156]), sum(header) - sum(header[148:156]) + 8 * 0x20
    if told != counted:
        known = " (it is compressed: unpack it, as parts of it cannot be read)" if _is_compressed(header) else ""
        raise TarDamaged(f"there is no tar header at byte {offset}{known}", offset)
    size = _number(header[124:136])
    if size is None or size > MAX_DATA_BYTES:
        raise TarDamaged(f"the header at byte {offset} claims a size that cannot be", offset)
    return size


def _number(field: bytes) -> int | None:
    """Octal digits, or 80 and a binary number; None for what is neither or is below nothing."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.fullmatch(field)
    return int(found[1] or b"0", 8) if found else None


def _name_of(header: bytes) -> str:
    prefix = header[345:500] if header[257:263] == b"ustar\x00" else b""
    return "/".join(filter(None, (_text(prefix), _text(header[:100]))))


def _text(field: bytes) -> str:
    return field.partition(b"\x00")[0].decode("utf-8", "replace")[:MAX_NAME_LENGTH]


def _pax(body: bytes, offset: int, name: str) -> tuple[str, int | None]:
    """Name and size of pax records, `length key=value`. Raises TarDamaged."""
    size, start = None, 0
    while start < len(body) and body[start] != 0:
        length, space, _ = body[start : start + 8].partition(b" ")
        end = start + int(length) if space and length.isdigit() else 0
        key, _, value = body[start + len(length) + 1 : max(end - 1, 0)].partition(b"=")
        if end <= start + len(length) + 1 or end > len(body):
            raise TarDamaged(f"the records of the header at byte {offset} cannot be read", offset)
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            size = int(value) if value.isdigit() and len(value) < 20 else MAX_DATA_BYTES + 1
            if size > MAX_DATA_BYTES:
                raise TarDamaged(f"the header at byte {offset} claims a size that cannot be", offset)
        start = end
    return name, size


def _after_sparse_map(read_at: ReadAt, header: bytes, offset: int) -> int:
    """Where the data of an old GNU sparse file begins."""
    is_extended, blocks = header[482:483] not in (b"", b"\x00"), 0
    while is_extended and blocks < MAX_EXTENSION_BYTES // BLOCK:
        block = read_at(offset, BLOCK)
        offset, blocks, is_extended = offset + BLOCK, blocks + 1, block[504:505] not in (b"", b"\x00")
    return offset


def _is_compressed(header: bytes) -> bool:
    return header.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
