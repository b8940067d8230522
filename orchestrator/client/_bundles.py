"""Which image becomes which object: large ones alone, small ones many to an object, as every object costs requests.

Images of a tar are sent as the tar has them, a stretch of it to an object, with whatever small things lie between.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.client._sources import Region
from orchestrator.domain.image_refs import BUNDLE_BYTES

SMALL_FILE_BYTES = 2**20
STRETCH_BYTES = 32 * 2**20  # of a tar: sent again as a whole when the store did not answer
GAP_BYTES = 2**20  # between two images of a tar; more is left out
READ_BYTES = 2**20
MAX_KNOWN = 200_000  # images; their digests and places take 58 MB

Place: TypeAlias = "str | dict[str, Any]"
"""As a manifest line names an image: an object, or a part of one."""


@dataclass
class OutgoingObject:
    """An object to be: its pieces one after the other, or with `file` that file, however long it is by then."""

    name: str
    pieces: list[Region | bytes] = field(default_factory=list)
    file: Path | None = None
    num_bytes: int = 0

    @property
    def is_missing(self) -> bool:
        return self.file is not None and not self.file.is_file()

    @property
    def bytes_held(self) -> int:
        """What it takes of memory while it waits."""
        return sum(len(piece) for piece in self.pieces if isinstance(piece, bytes))

    def length(self) -> int:
        return self.num_bytes if self.file is None else self.file.stat().st_size

    def read(self) -> Iterator[bytes]:
        """The bytes to send, a little at a time.

        A piece whose file has changed since it was given its place is zeros there, so it costs no other item.
        """
        if self.file is not None:
            num_bytes = self.length()
            yield from _read_region(Region(self.file, 0, num_bytes, num_bytes))
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from _read_region(piece)

    def add(self, piece: Region | bytes, num_bytes: int) -> Place:
        part = {"object": self.name, "offset": self.num_bytes, "num_bytes": num_bytes}
        self.pieces.append(piece)
        self.num_bytes += num_bytes
        return part


class Packer:
    """Gives every image its place, and hands out each object as soon as nothing more goes into it.

    with_digests: of the images, which are read for it; one that is equal to one of the last MAX_KNOWN different ones
        gets the same place.
    """

    def __init__(self, *, with_digests: bool = False) -> None:
        self._with_digests = with_digests
        self._known: OrderedDict[bytes, str] = OrderedDict()  # places, as JSON: half the memory
        self._num_files = self._num_bundles = self._num_stretches = 0
        self._bundle: OutgoingObject | None = None
        self._stretch: Region | None = None
        self._ready: list[OutgoingObject] = []

    def place(self, image: Path | Region | bytes) -> Place:
        digest = _sha256_of(image) if self._with_digests else None
        if digest is None:
            return self._new_place(image)
        if digest not in self._known:
            self._known[digest] = json.dumps(self._new_place(image))
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        place = json.loads(self._known[digest])
        return ({"object": place} if isinstance(place, str) else place) | {"sha256": digest.hex()}

    def _new_place(self, image: Path | Region | bytes) -> Place:
        if isinstance(image, Region):
            return self._place_in_stretch(image)
        number, self._num_files = self._num_files, self._num_files + 1
        if isinstance(image, bytes):
            return self._place(image, len(image), f"images/{number:09d}")
        is_file = image.is_file()
        num_bytes = image.stat().st_size if is_file else 0
        name = f"images/{number:09d}{image.suffix.lower()}"
        if is_file and 0 < num_bytes <= SMALL_FILE_BYTES:
            return self._place(Region(image, 0, num_bytes, num_bytes), num_bytes, name)
        self._ready.append(OutgoingObject(name, file=image))
        return name

    def take(self) -> list[OutgoingObject]:
        """The objects that are ready and were not taken yet."""
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Nothing more comes: what was begun is ready too."""
        self._end_bundle()
        self._end_stretch()

    def _place(self, piece: Region | bytes, num_bytes: int, name: str) -> Place:
        if num_bytes > SMALL_FILE_BYTES:
            self._ready.append(OutgoingObject(name, [piece], num_bytes=num_bytes))
            return name
        if self._bundle is not None and self._bundle.num_bytes + num_bytes > BUNDLE_BYTES:
            self._end_bundle()
        if self._bundle is None:
            self._bundle = OutgoingObject(f"bundles/{self._num_bundles:09d}")
            self._num_bundles += 1
        return self._bundle.add(piece, num_bytes)

    def _end_bundle(self) -> None:
        if self._bundle is not None:
            self._ready.append(self._bundle)
            self._bundle = None

    def _place_in_stretch(self, image: Region) -> Place:
        """A stretch grows to the end of the image, or the next one begins with it."""
        stretch = self._stretch
        end = image.offset + image.num_bytes
        if stretch is not None and stretch.path == image.path and end - stretch.offset <= STRETCH_BYTES:
            gap = image.offset - stretch.offset - stretch.num_bytes
            if 0 <= gap <= GAP_BYTES:
                self._stretch = replace(stretch, num_bytes=end - stretch.offset)
                return self._part(image, stretch.offset)
        self._end_stretch()
        self._stretch = image
        return self._part(image, image.offset)

    def _part(self, image: Region, start: int) -> Place:
        return {"object": self._stretch_name, "offset": image.offset - start, "num_bytes": image.num_bytes}

    def _end_stretch(self) -> None:
        if self._stretch is not None:
            self._ready.append(OutgoingObject(self._stretch_name, [self._stretch], num_bytes=self._stretch.num_bytes))
            self._num_stretches += 1
            self._stretch = None

    @property
    def _stretch_name(self) -> str:
        return f"tars/{self._num_stretches:09d}"


def _sha256_of(image: Path | Region | bytes) -> bytes | None:
    """None of a file that cannot be read: it becomes its item's failure."""
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    try:
        if isinstance(image, Path):
            with image.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256()
        for data in _read_region(image):
            digest.update(data)
        return digest.digest()
    except OSError:
        return None


def _read_region(region: Region) -> Iterator[bytes]:
    """So many bytes in any case; zeros in place of what is not there, or of all where the file is another one."""
    left = region.num_bytes
    try:
        with region.path.open("rb") as file:
            file.seek(region.offset)
            is_same = os.fstat(file.fileno()).st_size == region.file_bytes
            while is_same and left and (data := file.read(min(left, READ_BYTES))):
                left -= len(data)
                yield data
    except OSError:
        pass  # it went away
    while left:
        zeros = bytes(min(left, READ_BYTES))
        left -= len(zeros)
        yield zeros
