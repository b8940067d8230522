"""What one attempt at one shard does while it holds the lease.

Every item goes prepare (fetch and decode, in threads) -> engine -> store (images, in threads) -> line. Lines are
flushed as part objects for every few items, so that a killed worker costs at most that much, and the next attempt skips
them.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import leases, shards
from orchestrator.db.leases import LeaseLost
from orchestrator.db.session import SessionFactory
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.domain.failures import Failure
from orchestrator.domain.items import MAX_LINE_BYTES, ImageRef, Item, clean_message
from orchestrator.domain.jobs import CaptionOptions, JobKind, Options, options_for, options_of_item, seed_of
from orchestrator.domain.shards import Part, finished_indexes, part_key, runs_of
from orchestrator.settings import Settings
from orchestrator.telemetry import carried, get_logger
from workers import metrics, outputs
from workers.engine_host import Caption, CaptionRequest, EngineHost, GeneratedImage, GenerateRequest, Rejected, Ticket
from workers.errors import BadInput
from workers.failures import WORLD_FAULTS, failure_of
from workers.heartbeat import Hold
from workers.inputs import Inputs

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
        job: JobRow,
        shard: ShardRow,
        hold: Hold,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._store = store
        self._inputs = inputs
        self._host = host
        self._job = job
        self._shard = shard
        self._hold = hold
        self._kind = JobKind(job.kind)
        self._options: Options = options_for(self._kind, job.options)
        self._provenance = {"model": job.model, "revision": host.info(job.model).revision}
        self._preparing: dict[Future[Ticket], Item] = {}
        self._computing: dict[Future[Any], tuple[Item, Ticket]] = {}
        self._storing: dict[Future[dict[str, Any]], Item] = {}
        self._lines: dict[int, bytes] = {}
        self._failures: list[ItemFailure] = []
        self._next_part = 0
        self._flushed_at = time.monotonic()
        self._give_way_at = time.monotonic() + settings.attempt_seconds

    def run(self) -> str:
        """The attempt's outcome: `done`, `cancelled` or `released`. Raises LeaseLost and world faults."""
        waiting, gave_way = deque(self._unfinished_items()), False
        threads = self._settings.fetch_threads
        with ThreadPoolExecutor(threads, thread_name_prefix="item", initializer=carried()) as pool:
            try:
                while (waiting or self._in_flight()) and self._hold.stop_reason is None:
                    if time.monotonic() > self._give_way_at:
                        gave_way, waiting = gave_way or bool(waiting), deque()
                    self._start_items(waiting, pool)
                    self._collect(pool)
                    if self._is_flush_due():
                        self._flush()
            finally:
                self._give_up_in_flight()
        return self._close(self._hold.stop_reason or ("gave way" if gave_way else None))

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
        first, end = self._shard.first_index, self._shard.first_index + self._shard.num_items
        done = finished_indexes(shards.parts_of(self._shard))
        lines = self._store.lines(self._shard.items_key, max_line_bytes=MAX_LINE_BYTES)
        return [
            Item.from_line(line)
            for line in lines
            if first <= (index := Item.index_of(line)) < end and index not in done
        ]

    # --- The stages -----------------------------------------------------------------------------------------------

    def _in_flight(self) -> int:
        return len(self._preparing) + len(self._computing) + len(self._storing)

    def _start_items(self, waiting: deque[Item], pool: ThreadPoolExecutor) -> None:
        """Keep so many items decoded or on their way that the engine never waits, and memory stays bounded."""
        while waiting and self._in_flight() < 2 * self._host.max_rows(self._job.model):
            item = waiting.popleft()
            if item.failure is not None:
                self._fail(item, item.failure)
            else:
                self._preparing[pool.submit(self._prepare, item)] = item

    def _collect(self, pool: ThreadPoolExecutor) -> None:
        """Move every item whose stage has ended to the next one."""
        everything: list[Future[Any]] = [*self._preparing, *self._computing, *self._storing]
        ended = wait(everything, POLL_SECONDS, FIRST_COMPLETED).done if everything else set()
        for future in ended:
            if future in self._preparing:
                self._step(self._preparing.pop(future), future, self._compute)
            elif future in self._computing:
                item, _ = self._computing.pop(future)
                self._step(item, future, lambda item, answers: self._begin_storing(item, answers, pool))
            else:
                self._step(self._storing.pop(future), future, self._finish)

    def _step(self, item: Item, future: Future[Any], then: Callable[[Item, Any], None]) -> None:
        """Hand a stage's outcome on; an error that is the item's own becomes its failure."""
        try:
            then(item, future.result())
        except Exception as error:
            failure = failure_of(
                error,
                place=f"items[{item.index}]",
                attempt=self._hold.attempt,
                was_released=self._shard.releases,
            )
            if failure is None:
                raise
            self._fail(item, failure)

    def _prepare(self, item: Item) -> Ticket:
        return self._host.prepare(self._job.model, self._requests_of(item), job=self._job.id, order=item.index)

    def _requests_of(self, item: Item) -> Sequence[CaptionRequest | GenerateRequest]:
        seed = seed_of(self._options, item.index, item.seed)
        options = options_of_item(self._options, item.options)
        if isinstance(options, CaptionOptions):
            images = [self._fetch(item, k, image) for k, image in enumerate(item.images)]
            return [
                CaptionRequest(
                    image=images,
                    prompt=item.prompt or options.prompt,
                    max_new_tokens=options.max_tokens,
                    temperature=options.temperature,
                    top_p=options.top_p,
                    top_k=options.top_k,
                    seed=seed,
                )
            ]
        return [
            GenerateRequest(
                prompt=item.prompt or "",
                seed=seed + k,
                guidance=options.guidance,
                temperature=options.temperature,
                top_p=options.top_p,
                top_k=options.top_k,
                steps=options.steps,
                solver=options.solver,
            )
            for k in range(options.images)
        ]

    def _fetch(self, item: Item, k: int, image: ImageRef) -> Any:
        place = f"items[{item.index}].image" + (f"[{k}]" if len(item.images) > 1 else "")
        return self._inputs.image(image, place=place, fit=self._host.image_settings(self._job.model))

    def _compute(self, item: Item, ticket: Ticket) -> None:
        self._host.submit(ticket)
        self._computing[ticket.answers] = item, ticket

    def _begin_storing(self, item: Item, answers: list[Any], pool: ThreadPoolExecutor) -> None:
        rejected = next((answer for answer in answers if isinstance(answer, Rejected)), None)
        if rejected is not None:
            code = rejected.code if rejected.code in ("prompt_empty", "image_unreadable") else "request_rejected"
            raise BadInput(code, f"items[{item.index}]: {rejected.message}")
        self._storing[pool.submit(self._store_answers, item, answers)] = item

    def _store_answers(self, item: Item, answers: list[Caption | GeneratedImage]) -> dict[str, Any]:
        seed = seed_of(self._options, item.index, item.seed)
        if isinstance(answers[0], Caption):
            caption = answers[0]
            record = outputs.caption_record(
                caption.text, num_tokens=len(caption.token_ids), finish_reason=caption.finish_reason, seed=seed
            )
        else:
            images = [
                outputs.store_image(self._store, self._job.id, item.index, k, answer.image, seed + k)
                for k, answer in enumerate(answers)
                if isinstance(answer, GeneratedImage)
            ]
            record = {"prompt": item.prompt, "images": images}
        own = {"options": item.options} if item.options else {}
        return record | own | self._provenance

    def _finish(self, item: Item, record: dict[str, Any]) -> None:
        self._lines[item.index] = outputs.encode_line(item.index, item.id, record)

    def _fail(self, item: Item, failure: Failure) -> None:
        failure = replace(failure, message=clean_message(failure.message))
        self._lines[item.index] = outputs.encode_line(item.index, item.id, outputs.failure_record(failure))
        self._failures.append(ItemFailure(item.index, item.id, failure.code, failure.message, failure.attempts))

    # --- Flush and end --------------------------------------------------------------------------------------------

    def _is_flush_due(self) -> bool:
        seconds = time.monotonic() - self._flushed_at
        is_much = len(self._lines) >= UNSTORED_ITEMS and seconds >= UNSTORED_SECONDS
        return is_much or seconds >= self._settings.flush_seconds

    def _flush(self) -> None:
        """Store the finished lines as a part, then make it true by the row. Raises LeaseLost."""
        self._flushed_at = time.monotonic()
        if not self._lines:
            return
        data = b"".join(line for _, line in sorted(self._lines.items()))
        failed = {failure.index for failure in self._failures}
        part = Part(
            part_key(self._job.id, self._shard.id, self._hold.attempt, self._next_part),
            hashlib.sha256(data).hexdigest(),
            len(data),
            runs_of(index for index in self._lines if index not in failed),
            runs_of(failed),
        )
        self._store.put(part.key, data, "application/jsonl")
        self._persist(
            lambda session: leases.append_part(session, self._shard.id, self._hold.attempt, part, self._failures)
        )
        codes = [failure.code for failure in self._failures]
        metrics.part_flushed(self._job.kind, part, codes, time.monotonic() - self._flushed_at)
        self._lines, self._failures = {}, []
        self._next_part += 1

    def _close(self, stop_reason: str | None) -> str:
        if stop_reason == "lost":
            raise LeaseLost(self._shard.id, self._hold.attempt)
        self._flush()
        where = (self._shard.id, self._hold.attempt)
        if stop_reason is None:
            self._persist(lambda session: leases.finish_shard_if_leased(session, *where))
            return "done"
        if stop_reason == "cancel":
            self._persist(lambda session: leases.cancel_shard_if_leased(session, *where))
            return "cancelled"
        self._persist(
            lambda session: leases.release_shard_if_leased(session, *where, reason=stop_reason, delay_seconds=0)
        )
        return "released"

    def _persist(self, write: Callable[[Any], None]) -> None:
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

    def _write(self, write: Callable[[Any], None]) -> None:
        with self._sessions.begin() as session:
            write(session)

    def _give_up_in_flight(self) -> None:
        """Take back what is not finished; whatever has not begun is dropped, the engine lets go at its next step."""
        for _, ticket in self._computing.values():
            ticket.cancel()
        for future in self._preparing:
            future.cancel()
        wait([*self._computing], timeout=60)
