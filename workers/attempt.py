"""What one attempt at one shard does while it holds the lease.

Every item goes prepare (fetch and decode, in threads) -> engine -> store (images, in threads) -> line. Lines are
flushed as part objects for every few items, so that a killed worker costs at most that much, and the next attempt skips
them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import leases, rates, shards
from orchestrator.db.leases import LeaseLost
from orchestrator.db.session import SessionFactory
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.estimates import work_of_item
from orchestrator.domain.failures import Failure
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import JobKind, options_for, seed_of
from orchestrator.domain.names import clean_message
from orchestrator.domain.shards import finished_indexes
from orchestrator.settings import Settings
from orchestrator.telemetry import carried, get_logger
from workers import metrics, outputs
from workers.board import Answered, Board
from workers.engine_host import Answer, Caption, EngineHost, GeneratedImage, Rejected, Ticket
from workers.errors import BadInput
from workers.failures import WORLD_FAULTS, failure_of
from workers.heartbeat import Hold
from workers.inputs import Inputs
from workers.part_writer import PartWriter
from workers.preparing import Prepared, Preparer
from workers.reuse import Record, Reuse, Reused
from workers.stopwatch import Stopwatch

TOGETHER_ITEMS, TOGETHER_BYTES = 64, 2**18  # are prepared in one piece of work, which costs less for each item
UNKNOWN_BYTES = 2**16  # taken for an image whose size nobody said
POLL_SECONDS = 0.2  # how often an attempt that waits looks whether it should stop
# A worker that is killed costs the finished items that no part holds: so many, or those of so short a time.
UNSTORED_ITEMS = 8
UNSTORED_SECONDS = 0.1  # of an engine so fast that a part for every eight items would cost more than doing them again


class Attempt:
    """What one attempt knows while it runs."""

    def __init__(
        self,
        settings: Settings,
        sessions: SessionFactory,
        store: ObjectStore,
        inputs: Inputs,
        host: EngineHost,
        board: Board,
        job: JobRow,
        shard: ShardRow,
        hold: Hold,
        seconds_left: float | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._store = store
        self._host = host
        self._job = job
        self._shard = shard
        self._hold = hold
        self._options = options_for(JobKind(job.kind), job.options)
        info = host.info(job.model)
        self._provenance = {"model": job.model, "revision": info.revision}
        weights = self._provenance | {"dtype": info.dtype, "quantize": info.quantize}
        self._reuse = Reuse(board, sessions, store, job, weights, days=settings.reuse_days)
        self._preparer = Preparer(host, inputs, self._reuse, job)
        self._waiting: deque[Item] = deque()
        self._preparing: dict[Future[list[Prepared]], list[Item]] = {}
        self._equals: dict[Future[Answered | None], list[Item]] = {}  # of what somebody computes
        self._computing: dict[Future[Any], tuple[Item, Ticket]] = {}
        self._storing: dict[Future[Record | Reused | None], Item] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()  # of all four, in the order in which they ended
        self._unstored = PartWriter(store, job.id, shard.id, hold.attempt)
        self._stopwatch = stopwatch
        self._num_computed = 0  # items with a result that is new
        self._flushed_at = time.monotonic()
        self._give_way_at = time.monotonic() + settings.attempt_seconds
        self._closes_at = math.inf if seconds_left is None else time.monotonic() + seconds_left

    def run(self) -> str:
        """The attempt's outcome: `done`, `cancelled` or `released`. Raises LeaseLost and world faults."""
        self._waiting.extend(self._unfinished_items())
        self._reuse.look_up(self._waiting)
        gave_way = ""
        threads = self._settings.fetch_threads
        pool = ThreadPoolExecutor(threads, thread_name_prefix="item", initializer=carried())
        with closing(self._reuse), pool:
            try:
                while (self._waiting or self._equals or self._in_flight()) and self._hold.stop_reason is None:
                    gave_way = self._give_way() or gave_way
                    self._start_items(pool)
                    self._collect(pool)
                    if self._is_flush_due():
                        self._flush()
            finally:
                self._give_up_in_flight()
        return self._close(self._hold.stop_reason or gave_way or None)

    def save_and_release(self, reason: str) -> None:
        """Keep what is finished, and give the shard back for a while that grows with each time."""
        try:
            self._flush()
        except WORLD_FAULTS as error:
            get_logger().warning("last_flush_failed", error=str(error)[:300])
        delay_seconds = self._settings.retry_delay_seconds * min(self._shard.releases + 1, 30)
        self._write(
            lambda session: leases.release_shard_if_leased(
                session, self._shard.id, self._hold.attempt, reason=clean_message(reason), delay_seconds=delay_seconds
            )
        )

    def _unfinished_items(self) -> list[Item]:
        shard = self._shard
        first, end = shard.first_index, shard.first_index + shard.num_items
        done = finished_indexes(shards.parts_of(shard))
        lines = self._store.get_range(shard.items_key, shard.items_offset, shard.items_bytes).splitlines()
        return [
            Item.from_line(line)
            for line in lines
            if first <= (index := Item.index_of(line)) < end and index not in done
        ]

    # --- The stages -----------------------------------------------------------------------------------------------

    def _in_flight(self) -> int:
        preparing = sum(len(items) for items in self._preparing.values())
        return preparing + len(self._computing) + len(self._storing)

    def _start_items(self, pool: ThreadPoolExecutor) -> None:
        """Keep so many items decoded or on their way that the engine never waits, and memory stays bounded."""
        max_rows = self._host.max_rows(self._job.model)
        room = 2 * max_rows - self._in_flight()
        while self._waiting and room > 0:
            count, is_all = self._count_together(room)
            if not is_all and room < max_rows // 2:
                return  # the engine has enough, and soon more can go together
            items = [self._waiting.popleft() for _ in range(count)]
            room -= count
            for item in items:
                if item.failure is not None:
                    self._fail(item, item.failure)
            if sound := [item for item in items if item.failure is None]:
                self._preparing[self._follow(pool.submit(self._preparer.prepare, sound))] = sound

    def _count_together(self, room: int) -> tuple[int, bool]:
        """How many of those that wait go together, and whether more room would change nothing about it."""
        num_bytes, most = 0, min(TOGETHER_ITEMS, len(self._waiting))
        for count, item in enumerate(islice(self._waiting, min(room, most)), 1):
            num_bytes += sum(UNKNOWN_BYTES if image.num_bytes is None else image.num_bytes for image in item.images)
            if num_bytes >= TOGETHER_BYTES:
                return count, True
        return min(room, most), room >= most

    def _follow(self, future: Future[Any]) -> Future[Any]:
        future.add_done_callback(self._ended.put)
        return future

    def _collect(self, pool: ThreadPoolExecutor) -> None:
        """Move every item whose stage has ended to the next one."""
        for future in self._take_ended():
            if future in self._preparing:
                self._compute(self._preparing.pop(future), future.result())
            elif future in self._equals:
                self._take_over(self._equals.pop(future), future.result(), pool)
            elif future in self._computing:
                item, _ = self._computing.pop(future)
                self._step(item, future, lambda item, answers: self._begin_storing(item, answers, pool))
            elif future in self._storing:  # else it was taken back
                self._step(self._storing.pop(future), future, self._finish)

    def _take_ended(self) -> Iterator[Future[Any]]:
        """What has ended by now; waits for one."""
        if self._equals or self._in_flight():
            with suppress(Empty):
                yield self._ended.get(timeout=POLL_SECONDS)
                while True:
                    yield self._ended.get_nowait()

    def _step(self, item: Item, stage: Future[Any], then: Callable[[Item, Any], None]) -> None:
        """Hand a stage's outcome on; an error that is the item's own becomes its failure."""
        try:
            then(item, stage.result())
        except Exception as error:
            self._blame(item, error)

    def _blame(self, item: Item, error: Exception) -> None:
        """The error is the item's failure; what is not its fault is raised."""
        releases = self._shard.releases
        place = f"items[{item.index}]"
        failure = failure_of(error, place=place, attempt=self._hold.attempt, was_released=releases)
        if failure is None:
            raise error
        self._fail(item, failure)

    def _seed_of(self, item: Item) -> int:
        return seed_of(self._options, item.index, item.seed)

    def _compute(self, items: Sequence[Item], prepared: Sequence[Prepared]) -> None:
        """Hand the engine what is to be computed; what is not is finished, or waits for its equal."""
        tickets = []
        for item, what in zip(items, prepared, strict=True):
            if isinstance(what, Exception):
                self._blame(item, what)
            elif isinstance(what, Reused):
                self._finish(item, what)
            elif isinstance(what, Ticket):
                self._computing[self._follow(what.answers)] = item, what
                tickets.append(what)
            elif what in self._equals:
                self._equals[what].append(item)
            else:
                self._equals[what] = [item]
                self._follow(what)
        self._host.submit(tickets)

    def _take_over(self, items: Sequence[Item], answered: Answered | None, pool: ThreadPoolExecutor) -> None:
        """Give equal items the answer; where there is none, the first of them will be computed."""
        if answered is None:
            self._waiting.extendleft(reversed(items))
            return
        for item in items:
            if self._job.kind == JobKind.caption:
                self._finish(item, self._reuse.take_over(item, answered))
            else:
                self._storing[self._follow(pool.submit(self._reuse.take_over, item, answered))] = item

    def _begin_storing(self, item: Item, answers: Sequence[Answer], pool: ThreadPoolExecutor) -> None:
        """Captions are lines at once; images go to the store first."""
        rejected = next((answer for answer in answers if isinstance(answer, Rejected)), None)
        if rejected is not None:
            code = rejected.code if rejected.code in ("prompt_empty", "image_unreadable") else "request_rejected"
            raise BadInput(code, f"items[{item.index}]: {rejected.message}")
        if isinstance(answers[0], Caption):
            self._finish(item, outputs.caption_record(answers[0], seed=self._seed_of(item)))
        else:
            self._storing[self._follow(pool.submit(self._store_images, item, answers))] = item

    def _store_images(self, item: Item, answers: Sequence[Answer]) -> Record:
        seed = self._seed_of(item)
        images = [
            outputs.store_image(self._store, self._job.id, item.index, k, answer.image, seed + k)
            for k, answer in enumerate(answers)
            if isinstance(answer, GeneratedImage)
        ]
        return {"prompt": item.prompt, "images": images}

    def _finish(self, item: Item, result: Record | Reused | None) -> None:
        if result is None:  # the images of its equal went with their job
            self._waiting.appendleft(item)
            return
        self._reuse.finished(item, result)
        record = result.record if isinstance(result, Reused) else result
        own = {"options": item.options} if item.options else {}
        self._unstored.add(item.index, outputs.encode_line(item.index, item.id, record | own | self._provenance))

    def _fail(self, item: Item, failure: Failure) -> None:
        self._reuse.failed(item)
        failure = replace(failure, message=clean_message(failure.message))
        line = outputs.encode_line(item.index, item.id, outputs.failure_record(failure))
        said = ItemFailure(item.index, item.id, failure.code, failure.message, failure.attempts)
        self._unstored.add(item.index, line, said)

    # --- Flush and end --------------------------------------------------------------------------------------------

    def _is_flush_due(self) -> bool:
        seconds = time.monotonic() - self._flushed_at
        is_much = len(self._unstored) >= UNSTORED_ITEMS and seconds >= UNSTORED_SECONDS
        return is_much or seconds >= self._settings.flush_seconds

    def _flush(self, end: Callable[[Session], None] | None = None) -> None:
        """Store the finished lines as a part, then make it true by the row, and end the attempt with it if asked to.

        Raises LeaseLost.
        """
        self._flushed_at = time.monotonic()
        part, failures = self._unstored.store(self._reuse.reused), self._unstored.failures
        identities = self._reuse.identities

        def write(session: Session) -> None:
            if part is not None:
                leases.append_part(session, self._shard.id, self._hold.attempt, part, failures, identities)
            if end is not None:
                end(session)

        if part is not None or end is not None:
            self._persist(write)
        if part is not None:
            self._num_computed += part.num_results - part.num_reused
            codes = [failure.code for failure in failures]
            metrics.part_flushed(self._job.kind, part, codes, time.monotonic() - self._flushed_at)
            self._unstored.clear()
            self._reuse.flushed()

    def _close(self, stop_reason: str | None) -> str:
        if stop_reason == "lost":
            raise LeaseLost(self._shard.id, self._hold.attempt)
        where = (self._shard.id, self._hold.attempt)
        if stop_reason is None:
            self._flush(self._measured(lambda session: leases.finish_shard_if_leased(session, *where)))
            return "done"
        if stop_reason == "cancel":
            self._flush(self._measured(lambda session: leases.cancel_shard_if_leased(session, *where)))
            return "cancelled"
        release = partial(leases.release_shard_if_leased, reason=stop_reason, delay_seconds=0)
        self._flush(self._measured(lambda session: release(session, *where)))
        return "released"

    def _measured(self, end: Callable[[Session], None]) -> Callable[[Session], None]:
        """The attempt's end, and what was computed for how long until then, in one transaction."""
        unstored = len(self._unstored) - len(self._unstored.failures) - len(self._reuse.reused)
        num_items, job = self._num_computed + unstored, self._job
        if self._stopwatch is None or num_items <= 0:
            return end  # and leave the seconds to a shard of which something was computed in them
        seconds = self._stopwatch.take((job.model, job.kind))
        work = num_items * work_of_item(self._options)
        worker_id = self._shard.worker_id or ""

        def write(session: Session) -> None:
            end(session)
            rates.add(session, worker_id, job.model, job.kind, num_items=num_items, work=work, seconds=seconds)

        return write

    def _persist(self, write: Callable[[Session], None]) -> None:
        """One short transaction, tried again while Postgres is away and the lease may still be ours."""
        give_up_at = time.monotonic() + self._settings.lease_seconds
        while True:
            try:
                self._write(write)
                return
            except WORLD_FAULTS:
                if time.monotonic() > give_up_at or self._hold.stop_reason == "lost":
                    raise
                time.sleep(0.5)

    def _write(self, write: Callable[[Session], None]) -> None:
        with self._sessions.begin() as session:
            write(session)

    def _give_way(self) -> str:
        """Leave what has not begun to a later attempt, where it is time for that; why, where there is any.

        Items may come back to those that wait, as an equal one came to nothing: they are left too.
        """
        now = time.monotonic()
        if now > self._closes_at:
            is_some_left = self._withdraw() or bool(self._waiting or self._equals)
            self._waiting.clear()
            self._equals.clear()  # what was withdrawn is answered to nobody
            return "its window closed" if is_some_left else ""
        if now > self._give_way_at and self._waiting:
            self._waiting.clear()
            return "gave way"
        return ""

    def _withdraw(self) -> bool:
        """Take back the items that the engine has not begun, and let it finish the others; whether there were any."""
        preparing = list(self._preparing)
        for future in preparing:
            future.cancel()  # one that runs already makes tickets that nobody submits
        self._preparing.clear()
        tickets = {ticket: future for future, (_, ticket) in self._computing.items()}
        withdrawn = self._host.withdraw(list(tickets)) if tickets else set()
        for ticket in withdrawn:
            del self._computing[tickets[ticket]]
        return bool(preparing or withdrawn)

    def _give_up_in_flight(self) -> None:
        """Take back what is not finished; whatever has not begun is dropped, the engine lets go at its next step."""
        for _, ticket in self._computing.values():
            ticket.cancel()
        for future in self._preparing:
            future.cancel()
        wait([*self._computing], timeout=60)
