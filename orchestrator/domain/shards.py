"""A shard: consecutive items, one message, one worker; and the parts that its attempts have written."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from orchestrator.domain.items import Item


class ShardState(enum.StrEnum):
    """waiting -> dispatched -> leased -> done; leased -> waiting while attempts remain; cancelled before done."""

    waiting = "waiting"
    dispatched = "dispatched"
    leased = "leased"
    done = "done"
    cancelled = "cancelled"

    @property
    def open(self) -> bool:
        return self in OPEN


OPEN = frozenset({ShardState.waiting, ShardState.dispatched, ShardState.leased})


Runs = tuple[tuple[int, int], ...]  # half-open [first, end), ascending


@dataclass(frozen=True)
class Part:
    """Some of a shard's result lines, stored as one object and named by the shard's row.

    The row says which items the object holds, so that the next attempt knows what to skip without reading it.
    """

    key: str
    sha256: str
    num_bytes: int
    results: Runs  # items with a result
    failures: Runs  # items with a failure
    reused: Runs = ()  # of the results, those that were another item's before

    @property
    def num_results(self) -> int:
        return _length(self.results)

    @property
    def num_failures(self) -> int:
        return _length(self.failures)

    @property
    def num_reused(self) -> int:
        return _length(self.reused)

    def clipped(self, first: int, end: int) -> Part:
        """What of this part belongs to the items in [first, end)."""
        results, failures, reused = (_clip(runs, first, end) for runs in (self.results, self.failures, self.reused))
        return replace(self, results=results, failures=failures, reused=reused)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Part:
        names = ("results", "failures", "reused")
        runs = {name: tuple((first, end) for first, end in value.get(name, ())) for name in names}
        return cls(value["key"], value["sha256"], value["num_bytes"], **runs)


def runs_of(indexes: Iterable[int]) -> Runs:
    """Whole numbers as half-open runs: 3, 4, 5, 9 -> (3, 6), (9, 10)."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return tuple(runs)


def finished_indexes(parts: Iterable[Part]) -> set[int]:
    """Every index that some part holds a line for."""
    return {index for part in parts for first, end in part.results + part.failures for index in range(first, end)}


def middle_of(unfinished: Iterable[int]) -> int:
    """Where to halve a shard: the index that begins the second half of its unfinished items (two at least)."""
    ordered = sorted(unfinished)
    return ordered[len(ordered) // 2]


def _length(runs: Runs) -> int:
    return sum(end - first for first, end in runs)


def _clip(runs: Runs, first: int, end: int) -> Runs:
    clipped = ((max(a, first), min(b, end)) for a, b in runs)
    return tuple((a, b) for a, b in clipped if a < b)


def plan_shards(items: Iterable[Item], shard_items: int) -> Iterator[tuple[Item, ...]]:
    """Cut a stream of items into shards of `shard_items`, the last one shorter."""
    stream = iter(items)
    while shard := tuple(islice(stream, shard_items)):
        yield shard


def items_key(job_id: str, first_index: int) -> str:
    return f"jobs/{job_id}/items/{first_index:012d}.jsonl"


def part_key(job_id: str, shard_id: int, attempt: int, part: int | str) -> str:
    return f"jobs/{job_id}/shards/{shard_id}/{attempt}-{part}.jsonl"


def image_file(index: int, k: int) -> str:
    """What a generated image is called when it is downloaded."""
    return f"{index:09d}-{k}.png"


def image_name(file: str, sha256: str) -> str:
    """The name below its job of the object that holds an image."""
    return f"images/{file.removesuffix('.png')}-{sha256[:16]}.png"
