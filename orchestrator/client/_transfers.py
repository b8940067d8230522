"""Bytes to and from the store by presigned URL, many at once; the API never sees them."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Self, TypeVar

import httpx

from orchestrator.client._errors import TransferFailed
from orchestrator.client._retries import RETRY_STATUSES, TryAgain, with_retries
from orchestrator.client._steps import Driver, work

URLS_AT_ONCE = 500
T = TypeVar("T")


class Crew:
    """Threads for one piece of work, of which more is begun while some is being done."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
        self._running: set[Future[object]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, call: Callable[[], object]) -> None:
        """Call it in a thread, as soon as one is free; the first error of an earlier one is raised."""
        while len(self._running) > self._threads:
            done, self._running = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._running.add(self._pool.submit(call))

    def finish(self) -> None:
        """Wait for all that was begun."""
        for future in self._running:
            future.result()


class Transfers:
    """A pool of connections to the store. It is never handed a key: the URLs carry their own signatures."""

    def __init__(
        self,
        *,
        threads: int = 8,
        max_retries: int = 5,
        timeout_seconds: float = 120,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.threads = threads
        self._max_retries = max_retries
        self._client = httpx.Client(
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=threads, max_keepalive_connections=threads),
            transport=transport,
        )

    def with_retries(self, max_retries: int) -> Self:
        """The same connections, and so many retries."""
        other = copy.copy(self)
        other._max_retries = max_retries
        return other

    def put(self, url: str, data: bytes) -> None:
        self._send("PUT", url, lambda: data)

    def put_pieces(self, url: str, pieces: Callable[[], Iterator[bytes]], num_bytes: int) -> None:
        """Send so many bytes a piece at a time; `pieces` is called for each try."""
        self._send("PUT", url, pieces, {"Content-Length": str(num_bytes)})

    def holds(self, url: str, pieces: Callable[[], Iterator[bytes]]) -> bool:
        """Whether the object at a link to GET is these bytes, as far as its ETag says; False where it cannot say."""
        try:
            response = self._send("GET", url, headers={"Range": "bytes=0-0"})
        except TransferFailed as error:
            if error.status is None:
                raise
            return False
        digest = hashlib.md5(usedforsecurity=False)
        for piece in pieces():
            digest.update(piece)
        etag: str = response.headers.get("etag", "")
        return etag.strip('"') == digest.hexdigest()

    def put_file(self, url: str, file: IO[bytes]) -> None:
        """Send a file from its beginning, a piece at a time."""
        num_bytes = file.seek(0, io.SEEK_END)

        def pieces() -> Iterator[bytes]:
            file.seek(0)
            while piece := file.read(2**20):
                yield piece

        self.put_pieces(url, pieces, num_bytes)

    def get(self, url: str) -> bytes:
        return self._send("GET", url).content

    def get_into(self, url: str, file: IO[bytes] | None = None) -> str:
        """Write an object into an empty file a piece at a time; its SHA-256. Without a file it is only digested."""
        name = httpx.URL(url).path

        def attempt() -> str:
            digest = hashlib.sha256()
            if file is not None:  # a stream that broke off begins anew
                file.seek(0)
                file.truncate()
            try:
                with self._client.stream("GET", url) as response:
                    if not response.is_success:
                        response.read()
                        raise _refusal("GET", name, response)
                    for piece in response.iter_bytes(2**20):
                        digest.update(piece)
                        if file is not None:
                            file.write(piece)
            except httpx.TransportError as error:
                raise TryAgain(_silence("GET", name, error)) from error
            return digest.hexdigest()

        return self._with_retries(attempt)

    def map(self, work: Callable[[T], object], inputs: Iterable[T]) -> None:
        """Call `work` for each input in threads; inputs are taken as threads get free. The first error is raised."""
        with Crew(self.threads) as crew:
            for value in inputs:
                crew.begin(partial(work, value))
            crew.finish()

    def close(self) -> None:
        self._client.close()

    def _with_retries(self, attempt: Callable[[], T]) -> T:
        return Driver().run(with_retries(lambda: work(attempt), max_retries=self._max_retries))

    def _send(
        self,
        method: str,
        url: str,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        name = httpx.URL(url).path

        def attempt() -> httpx.Response:
            try:
                response = self._client.request(method, url, content=content and content(), headers=headers)
            except httpx.TransportError as error:
                raise TryAgain(_silence(method, name, error)) from error
            if response.is_success:
                return response
            raise _refusal(method, name, response)

        return self._with_retries(attempt)


def _silence(method: str, name: str, error: Exception) -> TransferFailed:
    return TransferFailed(f"{method} {name}: the store did not answer: {error}")


def _refusal(method: str, name: str, response: httpx.Response) -> Exception:
    status = response.status_code
    refused = TransferFailed(f"{method} {name}: the store answered {status}: {response.text[:200]}", status)
    return TryAgain(refused) if status in RETRY_STATUSES else refused


def in_groups(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter."""
    stream = iter(values)
    while group := list(islice(stream, size)):
        yield group


@contextmanager
def drafted(path: Path) -> Iterator[IO[bytes]]:
    """A file to write and read back, which takes its place when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("w+b") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """A file that is either whole or not there."""
    with drafted(path) as file:
        for chunk in chunks:
            file.write(chunk)
