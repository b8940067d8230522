"""An attempt's finished lines on their way into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db.shards import ItemFailure
from orchestrator.domain.shards import Part, part_key, runs_of


class PartWriter:
    """The lines that no part holds yet. One thread at a time.

    failures: of the items among them that have no result.
    """

    def __init__(self, store: ObjectStore, job_id: str, shard_id: int, attempt: int) -> None:
        self._store = store
        self._where = (job_id, shard_id, attempt)
        self._next_part = 0
        self._lines: dict[int, bytes] = {}
        self.failures: list[ItemFailure] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, index: int, line: bytes, failure: ItemFailure | None = None) -> None:
        self._lines[index] = line
        if failure is not None:
            self.failures.append(failure)

    def store(self, reused: Collection[int]) -> Part | None:
        """Put the object of the lines, which nothing names yet; None where there are none.

        reused: indexes of those that were not computed.
        """
        if not self._lines:
            return None
        data = b"".join(line for _, line in sorted(self._lines.items()))
        failed = {failure.index for failure in self.failures}
        part = Part(
            part_key(*self._where, self._next_part),
            hashlib.sha256(data).hexdigest(),
            len(data),
            runs_of(index for index in self._lines if index not in failed),
            runs_of(failed),
            runs_of(reused),
        )
        self._store.put(part.key, data, "application/jsonl")
        return part

    def clear(self) -> None:
        """The part is true: what comes now goes into the next one."""
        self._lines, self.failures = {}, []
        self._next_part += 1
