"""Which file becomes which object: large ones alone, small ones many to an object, as every object costs requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

SMALL_FILE_BYTES = 2**20
BUNDLE_BYTES = 4 * 2**20  # what a worker reads at a time

Place: TypeAlias = str | dict[str, Any]
"""As a manifest line names an image: an object, or a part of one."""


@dataclass(frozen=True)
class OutgoingObject:
    """An object to be: a file as it is, or of several files so many bytes each."""

    name: str
    file: Path | None
    bundled: list[tuple[Path, int]]

    def read(self) -> bytes | None:
        """The bytes to send; None where the file is away.

        A bundled file that has changed since it was given its place is zeros there, so it costs no other item.
        """
        if self.file is not None:
            return self.file.read_bytes() if self.file.is_file() else None
        return b"".join(_read_exactly(path, num_bytes) for path, num_bytes in self.bundled)


class Packer:
    """Gives every file its place, and notes each object in `objects`; the last one when it is closed."""

    def __init__(self, objects: IO[bytes]) -> None:
        self._objects = objects
        self._num_files = self._num_bundles = self._bundle_bytes = 0
        self._bundle: list[tuple[Path, int]] = []

    def place(self, path: Path) -> Place:
        number, self._num_files = self._num_files, self._num_files + 1
        num_bytes = path.stat().st_size if path.is_file() else 0
        if not 0 < num_bytes <= SMALL_FILE_BYTES:
            name = f"images/{number:09d}{path.suffix.lower()}"
            self._note(name, str(path), [])
            return name
        if self._bundle_bytes + num_bytes > BUNDLE_BYTES:
            self.close()
        offset = self._bundle_bytes
        self._bundle.append((path, num_bytes))
        self._bundle_bytes += num_bytes
        return {"object": self._bundle_name, "offset": offset, "num_bytes": num_bytes}

    def close(self) -> None:
        """Begin a new bundle with the next small file."""
        if self._bundle:
            self._note(self._bundle_name, None, [(str(path), num_bytes) for path, num_bytes in self._bundle])
            self._num_bundles, self._bundle, self._bundle_bytes = self._num_bundles + 1, [], 0

    @property
    def _bundle_name(self) -> str:
        return f"bundles/{self._num_bundles:09d}"

    def _note(self, name: str, file: str | None, bundled: list[tuple[str, int]]) -> None:
        self._objects.write(json.dumps([name, file, bundled]).encode() + b"\n")


def read_objects(objects: IO[bytes]) -> Iterator[OutgoingObject]:
    """What a packer noted."""
    objects.seek(0)
    for line in objects:
        name, file, bundled = json.loads(line)
        yield OutgoingObject(name, file and Path(file), [(Path(path), num_bytes) for path, num_bytes in bundled])


def _read_exactly(path: Path, num_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(num_bytes + 1)
    except OSError:
        data = b""
    return data if len(data) == num_bytes else bytes(num_bytes)
