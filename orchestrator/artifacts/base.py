"""What the store of bytes promises.

StoreError
├── ObjectMissing      no object of that name
├── ObjectTooLarge     it has more bytes than the reader takes
└── StoreUnavailable   the store did not answer: worth another try later
    ├── BucketMissing  it has no bucket of that name
    └── StoreRefused   it answered no: perhaps for this object only, perhaps its settings are wrong
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.domain.errors import JanusError


class StoreError(JanusError):
    """The object store did not do what it was asked."""


class ObjectMissing(StoreError):
    pass


class ObjectTooLarge(StoreError):
    pass


class StoreUnavailable(StoreError):
    pass


class StoreRefused(StoreUnavailable):
    pass


class BucketMissing(StoreUnavailable):
    pass


@dataclass(frozen=True)
class StoredObject:
    key: str
    num_bytes: int
    modified_at: datetime  # by the store's clock


class ObjectStore(Protocol):
    """Immutable bytes by name. Putting the same name again replaces; every call may raise StoreError."""

    def in_bucket(self, bucket: str) -> ObjectStore:
        """Another bucket of the same store, over the same connections."""
        ...

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None: ...

    def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> None: ...

    def put_stream(self, key: str, chunks: Iterable[bytes], content_type: str = "application/octet-stream") -> None:
        """Bytes as they come, however many; nothing is put where the stream raises."""
        ...

    def copy(self, source: str, target: str) -> None:
        """One object under a second name, without its bytes coming here. Raises ObjectMissing."""
        ...

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """All bytes; with `max_bytes`, at most one byte more than that, so that the caller sees it was too large."""
        ...

    def get_range(self, key: str, offset: int, num_bytes: int) -> bytes:
        """So many bytes from `offset` on; fewer where the object ends before."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """All bytes as a stream. Raises ObjectMissing at the first one."""
        ...

    def lines(self, key: str, *, max_line_bytes: int, max_bytes: int | None = None) -> Iterator[bytes]:
        """The object's lines without their ends, read as a stream; a longer line is cut at `max_line_bytes` + 1.

        Raises ObjectTooLarge, before the first line, for an object of more than `max_bytes`.
        """
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix in the order of their names, as a stream."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete many; one that is not there is no error. Some may be gone where it raises."""
        ...

    def presign_get(self, key: str, *, expires_seconds: int) -> str:
        """A link that a browser saves, as the last part of the key, and never shows as a page."""
        ...

    def presign_put(self, key: str, *, expires_seconds: int) -> str: ...

    def ping(self) -> None:
        """Raise unless the bucket is there."""
        ...
