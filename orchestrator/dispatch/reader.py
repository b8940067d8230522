"""A job's input to shards: a stream of items cut into objects of a few dozen, and a row for each.

One transaction a job: a reader that dies leaves nothing behind but objects that the next one writes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectMissing, ObjectStore, ObjectTooLarge, StoreError, StoreRefused
from orchestrator.db import jobs, overview, shards
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.shards import PlannedShard, failed_by_object
from orchestrator.db.tables import JobRow
from orchestrator.db.uploads import upload_prefix
from orchestrator.dispatch import metrics
from orchestrator.dispatch.listing import Listing
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain.image_refs import ImageNames
from orchestrator.domain.items import MAX_LINE_BYTES, Item, ItemReader
from orchestrator.domain.jobs import JobKind, JobState, Options, options_for, seed_of
from orchestrator.domain.names import IMAGE_SUFFIXES
from orchestrator.domain.places import InputPlaces, PlaceRefused
from orchestrator.domain.shards import items_key, plan_shards
from orchestrator.domain.strata import draw_indexes, pick
from orchestrator.domain.templates import is_template
from orchestrator.telemetry import carried, get_logger

MAX_TRIES = 5
ITEMS_OBJECT_BYTES = 2**20  # some thousand items
LOOK_EVERY_ITEMS = 50_000  # whether it was cancelled, while items are read of which few are kept


class _CancelledMeanwhile(Exception):
    """Nobody wants the rest of this input."""


class Reader:
    """Reads what jobs were given."""

    def __init__(
        self,
        sessions: SessionFactory,
        store: ObjectStore,
        *,
        max_item_line_bytes: int,
        max_manifest_bytes: int | None = None,
        allow_image_urls: bool = False,
        places: InputPlaces | None = None,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._max_manifest_bytes = max_manifest_bytes
        self._max_item_line_bytes = max_item_line_bytes
        self._allow_image_urls = allow_image_urls
        self._places = places
        self._one_by_one = OneByOne("reader", "job")

    def run_once(self, now: datetime) -> int:
        """Read the input of the accepted job whose turn it is; 1 if there was one. Teams take turns."""
        with self._sessions() as session:
            job_ids = jobs.list_unread(session, without=self._one_by_one.held)
        return self._one_by_one.run(job_ids, self._read, self._give_up, at_most=1)

    def _read(self, job_id: str) -> bool:
        with self._sessions() as session:
            if not try_lock(session, f"read:{job_id}"):
                return False
            job = jobs.get_job(session, job_id)
            if job.state != JobState.accepted:
                return False  # another reader was quicker
            if not try_lock(session, f"read-team:{job.team_id}"):
                return False  # one input of a team at a time, so that a reader stays free for the others
            try:
                total = None if job.sample is None else sum(1 for _ in self._raw_items(job))
                num_items = self._write_shards(session, job, total)
            except ObjectMissing as error:
                session.rollback()
                self._fail(job_id, f"its input could not be read: {error}. Upload it and create the job again.")
                return True
            except ObjectTooLarge as error:
                session.rollback()
                self._fail(job_id, f"its manifest is too large: {error} (JANUS_MAX_MANIFEST_BYTES). Make several jobs.")
                return True
            except PlaceRefused as error:
                session.rollback()
                self._fail(job_id, f"its input could not be read: {error}")
                return True
            except StoreRefused as error:
                if "s3" not in job.input:  # our own bucket, which somebody will mend
                    raise
                session.rollback()
                self._fail(job_id, f"its input could not be read: {error}. May this server read that bucket?")
                return True
            except _CancelledMeanwhile:
                session.rollback()
                return True
            if num_items == 0:
                session.rollback()
                self._fail(job_id, "its input holds no items: the upload or the manifest is empty.")
            elif jobs.start(session, job_id, num_items, total):
                session.commit()
                get_logger().info("input_read", team=job.team_id, items=num_items)
            return True

    def _write_shards(self, session: Session, job: JobRow, total: int | None) -> int:
        """While one object is put, the items of the next are read; before the rows are committed all are there."""
        num_items, put = 0, None
        with ThreadPoolExecutor(1, "put", initializer=carried()) as pool:
            for planned, data in _objects(job.id, self._items(session, job, total), job.shard_items):
                if put is not None:
                    put.result()
                put = pool.submit(self._store.put, planned[0].items_key, data, "application/jsonl")
                shards.add_shards(session, job.id, planned)
                num_items += sum(shard.num_items for shard in planned)
                if self._is_cancelled(job.id):
                    raise _CancelledMeanwhile
            if put is not None:
                put.result()
        return num_items

    def _items(self, session: Session, job: JobRow, total: int | None) -> Iterator[Item]:
        """Args: total: of a sample, how many items its input has."""
        if "retry_of" in job.input:
            before = jobs.get_job(session, job.input["retry_of"], team_id=job.team_id)
            if job.replay_index is not None:
                return self._replayed_item(session, before, job.replay_index)
            return self._failed_items(session, before, job.input.get("codes", ()))
        names = ImageNames(_prefix(job), allow_urls=self._allow_image_urls, places=self._places, team_id=job.team_id)
        options = options_for(JobKind(job.kind), job.options)
        is_listing = not any(job.input.get(source) for source in ("lines", "manifest", "s3"))  # names, each once
        reader = ItemReader(options, names, max_line_bytes=self._max_item_line_bytes, ids_differ=is_listing)
        items = reader.read(self._raw_items(job))
        return items if job.sample is None else _sampled(items, options, total or 0, job.sample)

    def _failed_items(self, session: Session, job: JobRow, codes: Sequence[str]) -> Iterator[Item]:
        """The items that failed, with the seeds they had, so that a second try asks for the same answer."""
        options = options_for(JobKind(job.kind), job.options)
        new_index = 0
        for key, failed in failed_by_object(session, job.id, codes):
            for line in self._store.lines(key, max_line_bytes=MAX_LINE_BYTES):
                item = Item.from_line(line)
                if item.index in failed:
                    yield _moved(item, options, new_index)
                    new_index += 1

    def _replayed_item(self, session: Session, job: JobRow, index: int) -> Iterator[Item]:
        """One item of a job, as it was asked."""
        options = options_for(JobKind(job.kind), job.options)
        for shard in overview.shards_covering(session, job.id, index, index + 1):
            lines = self._store.get_range(shard.items_key, shard.items_offset, shard.items_bytes).splitlines()
            found = [Item.from_line(line) for line in lines if Item.index_of(line) == index]
            yield from (_moved(item, options, 0) for item in found)

    def _raw_items(self, job: JobRow) -> Iterator[object]:
        """What the job was given, each as it stands there; of a sample everything, which is much more than it keeps."""
        raw_items = self._given(job, _prefix(job))
        return raw_items if job.sample is None else self._until_cancelled(job.id, raw_items)

    def _until_cancelled(self, job_id: str, raw_items: Iterator[object]) -> Iterator[object]:
        for number, raw in enumerate(raw_items, 1):
            if number % LOOK_EVERY_ITEMS == 0 and self._is_cancelled(job_id):
                raise _CancelledMeanwhile
            yield raw

    def _given(self, job: JobRow, prefix: str) -> Iterator[object]:
        if "lines" in job.input:
            return iter(job.input["lines"])
        if job.input.get("manifest"):
            key = prefix + job.input["manifest"]
            lines = self._store.lines(key, max_line_bytes=self._max_item_line_bytes, max_bytes=self._max_manifest_bytes)
            return (line for line in lines if line and not line.isspace())
        if "s3" in job.input:
            return self._listing(job)
        return (
            {"image": stored.key.removeprefix(prefix)}
            for stored in self._store.list(prefix)
            if stored.key.lower().endswith(IMAGE_SUFFIXES)
        )

    def _listing(self, job: JobRow) -> Iterator[object]:
        if self._places is None:
            raise PlaceRefused("this server reads no buckets (JANUS_INPUT_BUCKETS)")
        with_fields = is_template(str(job.options.get("prompt", "")))
        return Listing(self._store, self._places, job.team_id, with_fields=with_fields).lines(job.input["s3"])

    def _is_cancelled(self, job_id: str) -> bool:
        with self._sessions() as other:
            return jobs.get_job(other, job_id).cancel_requested_at is not None

    def _give_up(self, job_id: str, tries: int, error: Exception) -> None:
        """A store or a database that is away is waited for; anything else fails the job after a few tries."""
        if tries >= MAX_TRIES and not isinstance(error, StoreError | OperationalError | InterfaceError):
            self._fail(job_id, f"its input could not be read: {type(error).__name__}: {error}"[:1000])

    def _fail(self, job_id: str, reason: str) -> None:
        with self._sessions.begin() as session:
            failed = jobs.fail(session, job_id, reason)
        if failed:
            metrics.JOBS_ENDED.labels(JobState.failed).inc()
            get_logger().warning("job_ended", state=JobState.failed, reason=reason)


def _prefix(job: JobRow) -> str:
    """Of objects that its items name; empty where it has no upload."""
    upload_id = job.input.get("upload")
    return upload_prefix(job.team_id, upload_id) if upload_id else ""


def _sampled(items: Iterable[Item], options: Options, total: int, sample: int) -> Iterator[Item]:
    """Some of the items, each with the seed that it has in the whole job: so both ask for the same answer."""
    for new_index, item in enumerate(pick(items, draw_indexes(total, sample, options.seed))):
        yield _moved(item, options, new_index)


def _moved(item: Item, options: Options, new_index: int) -> Item:
    """At another index, with the seed that it had."""
    seed = None if item.failure else seed_of(options, item.index, item.seed)
    return replace(item, index=new_index, seed=seed)


def _objects(job_id: str, items: Iterable[Item], shard_items: int) -> Iterator[tuple[list[PlannedShard], bytes]]:
    """An object of items serves as many shards as fill it: a request for each would take most of the time."""
    first_index, planned, data = 0, list[PlannedShard](), bytearray()
    for shard in plan_shards(items, shard_items):
        lines = "".join([item.as_line() + "\n" for item in shard]).encode()
        key = planned[0].items_key if planned else items_key(job_id, first_index)
        planned.append(PlannedShard(first_index, len(shard), key, len(data), len(lines)))
        data += lines
        first_index += len(shard)
        if len(data) >= ITEMS_OBJECT_BYTES:
            yield planned, bytes(data)
            planned, data = [], bytearray()
    if planned:
        yield planned, bytes(data)
