"""Expired leases: the worker went silent, so the shard goes to another, or is halved until the bad item is alone."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from orchestrator.artifacts.base import ObjectMissing, ObjectStore
from orchestrator.db import expiry, jobs, shards
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import ShardRow
from orchestrator.dispatch import metrics
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain.items import Item
from orchestrator.domain.retries import Verdict, after_expiry
from orchestrator.domain.shards import Part, finished_indexes, middle_of, part_key
from orchestrator.metrics import count_items
from orchestrator.telemetry import get_logger


class Reaper:
    """Takes shards back from silent workers, ends what a cancelled job left waiting, and lets jobs expire."""

    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, max_crashes: int) -> None:
        self._sessions = sessions
        self._store = store
        self._max_crashes = max_crashes
        self._one_by_one = OneByOne("reaper", "shard")

    def run_once(self, now: datetime) -> int:
        """Judge every shard whose lease ran out before `now`, each in a transaction of its own; how many."""
        with self._sessions.begin() as session:
            late = jobs.expire(session)
        with self._sessions.begin() as session:
            cancelled = expiry.cancel_leftovers(session)
        with self._sessions() as session:
            expired = {shard.id: shard for shard in expiry.list_expired(session, now)}
        return (
            late
            + cancelled
            + self._one_by_one.run(expired, lambda shard_id: self._reap(expired[shard_id]), _say_nothing)
        )

    def _reap(self, seen: ShardRow) -> bool:
        everything = range(seen.first_index, seen.first_index + seen.num_items)
        unfinished = sorted(set(everything) - finished_indexes(shards.parts_of(seen)))
        crashes = seen.crashes + 1
        verdict = after_expiry(crashes=crashes, max_crashes=self._max_crashes, unfinished=len(unfinished))
        # The store is asked before the row is locked, so that a slow store holds up nobody's lease.
        last_word = self._last_word(seen, unfinished[0], crashes) if verdict is Verdict.give_up else None
        with self._sessions.begin() as session:
            shard = expiry.lock_unchanged(session, seen)
            if shard is None:
                return False
            job = jobs.get_job(session, shard.job_id)
            was_cancelled = job.cancel_requested_at is not None
            if was_cancelled:
                expiry.cancel_expired(session, shard)
            elif last_word is not None:
                expiry.finish_expired(session, shard, *last_word)
            elif verdict is Verdict.halve:
                # The halves have one crash left, so that the bad half is found quickly.
                expiry.halve_expired(session, shard, middle_of(unfinished), self._max_crashes - 1)
            else:
                expiry.retry_expired(session, shard, crashes)
        ending = "cancel" if was_cancelled else verdict.value
        metrics.EXPIRED.labels(ending).inc()
        if ending == Verdict.give_up.value:
            count_items(job.kind, 0, ["worker_crashed"])
        get_logger().warning("lease_expired", job=job.id, worker=seen.worker_id, verdict=ending, crashes=crashes)
        return True

    def _last_word(self, shard: ShardRow, index: int, crashes: int) -> tuple[Part, shards.ItemFailure]:
        """The failure of an item that is given up, stored as a part."""
        item_id = self._item_id(shard, index)
        message = (
            f"{crashes} attempts in a row ended without a word while they held this item alone; "
            "the workers' logs say more. The other items of the job are not affected."
        )
        failure = shards.ItemFailure(index, item_id, "worker_crashed", message, crashes)
        record = {"code": failure.code, "message": failure.message, "attempts": crashes}
        line = json.dumps({"index": index, "id": item_id, "failure": record}, ensure_ascii=False).encode() + b"\n"
        key = part_key(shard.job_id, shard.id, shard.attempt, "given-up")
        self._store.put(key, line, "application/jsonl")
        return Part(key, hashlib.sha256(line).hexdigest(), len(line), (), ((index, index + 1),)), failure

    def _item_id(self, shard: ShardRow, index: int) -> str:
        """The item's id, or its index where even the list of items cannot be read."""
        try:
            for line in self._store.get_range(shard.items_key, shard.items_offset, shard.items_bytes).splitlines():
                if Item.index_of(line) == index:
                    return Item.from_line(line).id
        except (ObjectMissing, ValueError, LookupError):
            pass
        return str(index)


def _say_nothing(shard_id: int, tries: int, error: Exception) -> None:
    """The log has it; the next round tries again."""
