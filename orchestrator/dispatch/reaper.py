"""Expired leases: the worker went silent, so the shard goes to another, or is halved until the bad item is alone."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import jobs, shards
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import ShardRow
from orchestrator.domain.items import MAX_LINE_BYTES, Item
from orchestrator.domain.retries import Verdict, after_expiry
from orchestrator.domain.shards import Part, finished_indexes, middle_of, part_key


class Reaper:
    """Takes shards back from workers that stopped renewing."""

    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, max_crashes: int) -> None:
        self._sessions = sessions
        self._store = store
        self._max_crashes = max_crashes

    def run_once(self, now: datetime) -> int:
        """Judge every shard whose lease ran out before `now`; how many."""
        with self._sessions.begin() as session:
            expired = shards.lock_expired(session, now)
            for shard in expired:
                self._judge(session, shard)
            return len(expired)

    def _judge(self, session: Session, shard: ShardRow) -> None:
        if jobs.get_job(session, shard.job_id).cancel_requested_at is not None:
            shards.cancel_expired(session, shard)
            return
        everything = range(shard.first_index, shard.first_index + shard.num_items)
        unfinished = sorted(set(everything) - finished_indexes(shards.parts_of(shard)))
        crashes = shard.crashes + 1
        verdict = after_expiry(crashes=crashes, max_crashes=self._max_crashes, unfinished=len(unfinished))
        if verdict is Verdict.retry:
            shards.retry_expired(session, shard, crashes)
        elif verdict is Verdict.halve:
            # The halves have one crash left, so that the bad half is found quickly.
            shards.halve_expired(session, shard, middle_of(unfinished), self._max_crashes - 1)
        else:
            self._give_up(session, shard, unfinished[0], crashes)

    def _give_up(self, session: Session, shard: ShardRow, index: int, crashes: int) -> None:
        item_id = self._item_id(shard, index)
        message = (
            f"{crashes} workers in a row died or went silent while they held this item alone; "
            "the worker's log says more. The other items of the job are not affected."
        )
        failure = shards.ItemFailure(index, item_id, "worker_crashed", message, crashes)
        record = {"code": failure.code, "message": failure.message, "attempts": crashes}
        line = json.dumps({"index": index, "id": item_id, "failure": record}, ensure_ascii=False).encode() + b"\n"
        key = part_key(shard.job_id, shard.id, shard.attempt, 0).replace("-0.jsonl", "-given-up.jsonl")
        self._store.put(key, line, "application/jsonl")
        part = Part(key, hashlib.sha256(line).hexdigest(), len(line), (), ((index, index + 1),))
        shards.finish_expired(session, shard, part, failure)

    def _item_id(self, shard: ShardRow, index: int) -> str:
        for line in self._store.lines(shard.items_key, max_line_bytes=MAX_LINE_BYTES):
            item = Item.from_line(line)
            if item.index == index:
                return item.id
        raise LookupError(f"{shard.items_key} has no item {index}, although shard {shard.id} counts it")
