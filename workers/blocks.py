"""Images' bytes. Parts of objects are read a block at a time: a small image comes with its neighbours, wanted next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from orchestrator.artifacts.base import ObjectStore
from orchestrator.domain.image_refs import BUNDLE_BYTES, ImageRef

MAX_BLOCKS = 8


class Blocks:
    """The blocks that were wanted last. Whoever wants one that is on its way waits for it."""

    def __init__(self, store: ObjectStore, *, block_bytes: int = BUNDLE_BYTES, max_blocks: int = MAX_BLOCKS) -> None:
        self._store, self._block_bytes, self._max_blocks = store, block_bytes, max_blocks
        self._kept: OrderedDict[tuple[str, str, int], Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, image: ImageRef, *, max_bytes: int) -> bytes:
        """An image's bytes, one more than `max_bytes` at most; fewer where its object ends before.

        Raises StoreError, as ObjectStore does.
        """
        if image.num_bytes is None:
            return self._in(image.bucket).get(image.key, max_bytes=max_bytes)
        return self.part(image.bucket, image.key, image.offset, min(image.num_bytes, max_bytes + 1))

    def _in(self, bucket: str) -> ObjectStore:
        return self._store.in_bucket(bucket) if bucket else self._store

    def part(self, bucket: str, key: str, offset: int, num_bytes: int) -> bytes:
        """So many bytes of an object from `offset` on; fewer where it ends before. Raises StoreError."""
        if num_bytes > self._block_bytes:
            return self._in(bucket).get_range(key, offset, num_bytes)
        first, last = offset // self._block_bytes, (offset + num_bytes - 1) // self._block_bytes
        data = b"".join(self._block(bucket, key, number) for number in range(first, last + 1))
        start = offset - first * self._block_bytes
        return data[start : start + num_bytes]

    def _block(self, bucket: str, key: str, number: int) -> bytes:
        place = bucket, key, number
        with self._lock:
            block = self._kept.get(place)
            is_mine = block is None
            if block is None:
                block = self._kept[place] = Future()
            self._kept.move_to_end(place)
            if len(self._kept) > self._max_blocks:
                self._kept.popitem(last=False)
        if is_mine:
            self._fetch(place, block)
        return block.result()

    def _fetch(self, place: tuple[str, str, int], block: Future[bytes]) -> None:
        bucket, key, number = place
        try:
            block.set_result(self._in(bucket).get_range(key, number * self._block_bytes, self._block_bytes))
        except BaseException as error:  # who waits for it is told; who comes later tries again
            block.set_exception(error)
            with self._lock:
                self._kept.pop(place, None)
