"""The store over any S3 (MinIO, SeaweedFS, AWS), through the `minio` SDK.

Two clients: the inner one moves bytes; the public one only signs URLs, because the host is part of the signature. The
region is given, so signing makes no network call.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote, urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from orchestrator.artifacts.base import (
    BucketMissing,
    ObjectMissing,
    ObjectTooLarge,
    StoredObject,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from orchestrator.metrics import STORE_SECONDS

PART_BYTES = 16 * 2**20  # of a stream; so much of it is in memory, and 10,000 are an object at most
CHUNK_BYTES = 2**20
_MISSING = {"NoSuchKey", "NoSuchObject"}
_TRY_AGAIN = {408, 429}
_NEVER_THE_OBJECTS = {"RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidAccessKeyId"}  # our clock, our keys
_BEYOND_THE_END = 416


class S3Store:
    """One bucket.

    Args:
        endpoint: http(s)://host:port as this process reaches it.
        public_endpoint: the same as clients reach it; goes into presigned URLs.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        public_endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str,
        pool_size: int = 16,
    ) -> None:
        self._bucket = bucket
        self._pool = _TimedPool(
            maxsize=pool_size,
            timeout=urllib3.Timeout(connect=5, read=60),
            retries=urllib3.Retry(total=4, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        keys: dict[str, Any] = {"access_key": access_key, "secret_key": secret_key, "region": region}
        self._inner = _client(endpoint, keys, self._pool)
        self._public = _client(public_endpoint, keys, self._pool)

    def in_bucket(self, bucket: str) -> S3Store:
        other = copy(self)
        other._bucket = bucket
        return other

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        with _translated(key):
            self._inner.put_object(self._bucket, key, io.BytesIO(data), len(data), content_type=content_type)

    def put_file(self, key: str, path: Path, content_type: str = "application/octet-stream") -> None:
        with _translated(key):
            self._inner.fput_object(self._bucket, key, str(path), content_type=content_type)

    def put_stream(self, key: str, chunks: Iterable[bytes], content_type: str = "application/octet-stream") -> None:
        with _translated(key):
            data = cast(BinaryIO, io.BufferedReader(_Stream(chunks), CHUNK_BYTES))
            self._inner.put_object(
                self._bucket,
                key,
                data,
                length=-1,
                content_type=content_type,
                part_size=PART_BYTES,
                num_parallel_uploads=1,
            )

    def copy(self, source: str, target: str) -> None:
        with _translated(source):
            self._inner.copy_object(self._bucket, target, CopySource(self._bucket, source))

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        with _translated(key), self._open(key) as response:
            return bytes(response.read() if max_bytes is None else response.read(max_bytes + 1))

    def get_range(self, key: str, offset: int, num_bytes: int) -> bytes:
        try:
            with _translated(key), self._open(key, offset, num_bytes) as response:
                return bytes(response.read())
        except StoreRefused as error:
            if isinstance(error.__cause__, S3Error) and error.__cause__.response.status == _BEYOND_THE_END:
                return b""
            raise

    def chunks(self, key: str) -> Iterator[bytes]:
        with _translated(key), self._open(key) as response:
            while chunk := response.read(CHUNK_BYTES):
                yield bytes(chunk)

    def lines(self, key: str, *, max_line_bytes: int, max_bytes: int | None = None) -> Iterator[bytes]:
        with _translated(key), self._open(key) as response:
            num_bytes = int(response.headers["Content-Length"])
            if max_bytes is not None and num_bytes > max_bytes:
                raise ObjectTooLarge(f"{key!r} has {num_bytes} bytes; at most {max_bytes} are accepted")
            response.auto_close = False  # else the last read closes it under the buffer's feet
            buffered = io.BufferedReader(response, 2**20)
            while line := buffered.readline(max_line_bytes + 1):
                if not line.endswith(b"\n") and len(line) > max_line_bytes:
                    _skip_to_line_end(buffered)
                yield line.rstrip(b"\r\n")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        with _translated(prefix):
            for entry in self._inner.list_objects(self._bucket, prefix=prefix, recursive=True):
                if not entry.is_dir:
                    yield StoredObject(entry.object_name, entry.size or 0, entry.last_modified or datetime.now(UTC))

    def delete(self, keys: Iterable[str]) -> None:
        with _translated("many objects"):
            for error in self._inner.remove_objects(self._bucket, (DeleteObject(key) for key in keys)):
                raise StoreRefused(f"the object store did not delete {error.name!r}: {error.code}: {error.message}")

    def presign_get(self, key: str, *, expires_seconds: int) -> str:
        name = quote(key.rpartition("/")[2], safe="")
        headers: dict[str, Any] = {"response-content-disposition": f"attachment; filename*=UTF-8''{name}"}
        expires = timedelta(seconds=expires_seconds)
        with _translated(key):
            return str(self._public.presigned_get_object(self._bucket, key, expires=expires, response_headers=headers))

    def presign_put(self, key: str, *, expires_seconds: int) -> str:
        with _translated(key):
            return str(self._public.presigned_put_object(self._bucket, key, expires=timedelta(seconds=expires_seconds)))

    def ensure_bucket(self) -> None:
        """Make the bucket where it is missing."""
        with _translated(self._bucket):
            if not self._inner.bucket_exists(self._bucket):
                self._inner.make_bucket(self._bucket)

    def ping(self) -> None:
        with _translated(self._bucket):
            if not self._inner.bucket_exists(self._bucket):
                raise BucketMissing(f"there is no bucket {self._bucket!r}; run `python -m orchestrator.admin migrate`")

    def close(self) -> None:
        """Let the connections go."""
        self._pool.clear()

    @contextmanager
    def _open(self, key: str, offset: int = 0, num_bytes: int = 0) -> Iterator[Any]:
        """From `offset` on; so many bytes, or all that are there."""
        response = self._inner.get_object(self._bucket, key, offset=offset, length=num_bytes)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()


class _TimedPool(urllib3.PoolManager):
    """Counts and times what is asked of the store."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        began, status = time.perf_counter(), "error"
        try:
            response = super().urlopen(method, url, redirect, **kw)
            status = f"{response.status // 100}xx"
            return response
        finally:
            STORE_SECONDS.labels(method, status).observe(time.perf_counter() - began)


class _Stream(io.RawIOBase):
    """Chunks as a file that can be read once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        num_bytes = min(len(buffer), len(self._rest))
        buffer[:num_bytes] = self._rest[:num_bytes]
        self._rest = self._rest[num_bytes:]
        return num_bytes


def _client(endpoint: str, keys: dict[str, Any], pool: urllib3.PoolManager) -> Minio:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.netloc or url.path not in ("", "/"):
        raise StoreError(f"{endpoint!r} is not an S3 endpoint; write http://host:port (JANUS_S3_ENDPOINT)")
    return Minio(url.netloc, secure=url.scheme == "https", http_client=pool, **keys)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """The SDK's and urllib3's errors as ours, with the object's name."""
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise ObjectMissing(f"there is no object {key!r}") from error
        refused = 400 <= error.response.status < 500 and error.response.status not in _TRY_AGAIN
        kind = StoreRefused if refused and error.code not in _NEVER_THE_OBJECTS else StoreUnavailable
        raise kind(f"the object store refused {key!r}: {error.code}: {error.message}") from error
    except (ServerError, InvalidResponseError, MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise StoreUnavailable(f"the object store did not answer for {key!r}: {error}") from error


def _skip_to_line_end(reader: io.BufferedReader) -> None:
    while chunk := reader.readline(2**16):
        if chunk.endswith(b"\n"):
            return
