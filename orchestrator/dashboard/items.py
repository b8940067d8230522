"""Some items of a job, with what became of them: only the shards' rows and the objects that these items need are read.

An item's input is a line among those of its shard, its result a line of a part, and the shard's row says where both
are. So a page costs the same in a job of a million items as in one of a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectMissing, ObjectStore, StoreError
from orchestrator.db import edits, overview
from orchestrator.db.shards import parts_of
from orchestrator.db.tables import EditRow, JobRow, ShardRow
from orchestrator.domain.items import Item
from orchestrator.domain.shards import ShardState

MAX_ITEMS = 100  # at once
_THREADS = 8


@dataclass(frozen=True)
class Rows:
    """What Postgres knows about some items."""

    job: JobRow
    indexes: tuple[int, ...]
    shards: Sequence[ShardRow]
    edits: dict[int, EditRow]

    def shard_of(self, index: int) -> ShardRow | None:
        inside = (s for s in self.shards if s.first_index <= index < s.first_index + s.num_items)
        return next(inside, None)

    def finished(self) -> frozenset[int]:
        """Those that have a line by now."""
        runs = [run for shard in self.shards for part in parts_of(shard) for run in part.results + part.failures]
        return frozenset(index for index in self.indexes if _touches(runs, frozenset((index,))))


@dataclass(frozen=True)
class Seen:
    """An item as a page shows it."""

    index: int
    item: Item | None  # as it was handed in; None where that cannot be read
    line: dict[str, Any] | None  # its result or failure, once it has one
    edit: EditRow | None
    attempt: int  # of its shard
    is_open: bool  # whether a result may still come

    @property
    def id(self) -> str:
        return str(self.line["id"]) if self.line else self.item.id if self.item else str(self.index)

    @property
    def failure(self) -> dict[str, Any] | None:
        return self.line.get("failure") if self.line else None

    @property
    def caption(self) -> str | None:
        """As somebody edited it, else as the model said it."""
        if self.edit is not None and self.edit.caption is not None:
            return self.edit.caption
        return self.line.get("caption") if self.line else None

    @property
    def prompt(self) -> str | None:
        return (self.line or {}).get("prompt") or (self.item.prompt if self.item else None)


def rows_between(session: Session, job: JobRow, first: int, end: int) -> Rows:
    """Of the items [first, end), at most MAX_ITEMS."""
    end = min(end, first + MAX_ITEMS, job.num_items)
    found = overview.shards_covering(session, job.id, first, end) if first < end else []
    return _rows(session, job, range(first, end), found)


def rows_of(session: Session, job: JobRow, indexes: Iterable[int]) -> Rows:
    """Of items that lie anywhere, in ascending order, at most MAX_ITEMS."""
    chosen, found = list(indexes)[:MAX_ITEMS], list[ShardRow]()
    for index in chosen:
        if not found or index >= found[-1].first_index + found[-1].num_items:
            found += overview.shards_covering(session, job.id, index, index + 1)
    return _rows(session, job, chosen, found)


def _rows(session: Session, job: JobRow, indexes: Sequence[int], found: Sequence[ShardRow]) -> Rows:
    made = {}
    if indexes:
        first, end = indexes[0], indexes[-1] + 1
        between = edits.list_edits(session, job.id, after_index=first - 1, before_index=end, limit=1000)
        made = {edit.index: edit for edit in between}
    return Rows(job, tuple(indexes), found, made)


def see(rows: Rows, store: ObjectStore) -> list[Seen]:
    """The items themselves, from the store; needs no session. Raises StoreError."""
    wanted = frozenset(rows.indexes)
    parts = {
        part.key for shard in rows.shards for part in parts_of(shard) if _touches(part.results + part.failures, wanted)
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        lines_of = pool.map(lambda key: _result_lines(store, key, wanted), parts)
        items_of = pool.map(lambda shard: _items(store, shard, wanted), rows.shards)
        lines = {line["index"]: line for lines in lines_of for line in lines}
        items = {item.index: item for items in items_of for item in items}
    return [_seen(rows, index, items.get(index), lines.get(index)) for index in rows.indexes]


def _seen(rows: Rows, index: int, item: Item | None, line: dict[str, Any] | None) -> Seen:
    shard = rows.shard_of(index)
    is_open = line is None and (shard is None or ShardState(shard.state).open)
    return Seen(index, item, line, rows.edits.get(index), shard.attempt if shard else 0, is_open)


def _touches(runs: Iterable[tuple[int, int]], wanted: frozenset[int]) -> bool:
    return any(first <= index < end for first, end in runs for index in wanted)


def _result_lines(store: ObjectStore, key: str, wanted: frozenset[int]) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in store.get(key).splitlines()]
    except ObjectMissing:  # `janus jobs verify` tells it aloud; a page shows the others
        return []
    return [line for line in lines if line["index"] in wanted]


def _items(store: ObjectStore, shard: ShardRow, wanted: frozenset[int]) -> list[Item]:
    """Inputs are shown where they can be; a page is not lost for them."""
    try:
        lines = store.get_range(shard.items_key, shard.items_offset, shard.items_bytes).splitlines()
        return [Item.from_line(line) for line in lines if Item.index_of(line) in wanted]
    except (StoreError, ValueError):
        return []
