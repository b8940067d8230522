"""The last shard is done: results in item order, failures, and a manifest with every digest; then the job ends.

Merging can be repeated at will: the same rows and parts give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

from sqlalchemy.orm import Session

from orchestrator.artifacts.base import ObjectStore, StoreUnavailable
from orchestrator.db import jobs, shards
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.tables import JobRow, ShardRow
from orchestrator.dispatch import metrics
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain.errors import JanusError
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.shards import ShardState
from orchestrator.telemetry import carried, get_logger

MANIFEST_VERSION = 1
FETCH_THREADS = 4  # that bring parts while others are merged


class PartDamaged(JanusError):
    """A part's bytes are not those whose digest its row keeps."""


class BooksDoNotBalance(JanusError):
    """Rows and parts do not agree on what became of the items."""


class Finisher:
    """Ends jobs."""

    def __init__(self, sessions: SessionFactory, store: ObjectStore) -> None:
        self._sessions = sessions
        self._store = store
        self._one_by_one = OneByOne("finisher", "job")

    def run_once(self, now: datetime) -> int:
        """Merge and end the next job that has nothing left to run; 1 if there was one. Teams take turns."""
        with self._sessions() as session:
            job_ids = jobs.list_to_finish(session, without=self._one_by_one.held)
        return self._one_by_one.run(job_ids, self._finish, self._note_trouble, at_most=1)

    def _note_trouble(self, job_id: str, tries: int, error: Exception) -> None:
        if not isinstance(error, StoreUnavailable):
            with self._sessions.begin() as session:
                jobs.note_trouble(session, job_id, f"its results cannot be merged: {error}"[:1000])

    def _finish(self, job_id: str) -> bool:
        with self._sessions() as lock:
            if not try_lock(lock, f"read:{job_id}") or not try_lock(lock, f"finish:{job_id}"):
                return False
            with self._sessions.begin() as session:
                jobs.begin_finishing(session, job_id)
            with self._sessions() as session:
                job = jobs.get_job(session, job_id)
                if job.state != JobState.finishing:
                    return False  # another finisher was quicker
                counts, manifest_sha256 = self._merge(session, job)
            with self._sessions.begin() as session:
                state = jobs.finish(session, job, counts, manifest_sha256)
            metrics.JOBS_ENDED.labels(state).inc()
            get_logger().info("job_ended", team=job.team_id, state=state, **asdict(counts))
            return True

    def _merge(self, session: Session, job: JobRow) -> tuple[Counts, str]:
        """Store results, failures and manifest; what became of the items, and the manifest's digest."""
        with (
            tempfile.TemporaryDirectory(prefix="janus-merge-") as folder,
            _DigestFile(Path(folder) / "results") as results,
            _DigestFile(Path(folder) / "failures") as failures,
            _DigestFile(Path(folder) / "parts") as parts,
            _DigestFile(Path(folder) / "manifest") as manifest,
        ):
            counts = self._merge_shards(session, job, results, failures, parts)
            if not counts.balanced or (counts.cancelled and job.cancel_requested_at is None):
                raise BooksDoNotBalance(
                    f"the shards of {job.id} hold {counts}; some items are neither done nor cancelled"
                )
            _write_manifest(manifest, job, counts, results, failures, parts)
            for name, file in (("results.jsonl", results), ("failures.jsonl", failures), ("manifest.json", manifest)):
                content_type = "application/json" if file is manifest else "application/jsonl"
                self._store.put_file(f"jobs/{job.id}/{name}", file.close(), content_type)
        return counts, manifest.sha256

    def _merge_shards(
        self, session: Session, job: JobRow, results: _DigestFile, failures: _DigestFile, parts: _DigestFile
    ) -> Counts:
        counts, cancelled, reused = Counts(job.num_items, 0, 0), 0, 0
        with ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="merge", initializer=carried()) as pool:
            for shard, lines in _read_ahead(pool, self._lines, _all_shards(session, job.id)):
                before = counts
                for line in lines:
                    failed = b'"failure":' in line and "failure" in json.loads(line)
                    results.write(line)
                    if failed:
                        failures.write(line)
                    counts = _count(counts, failed)
                cancelled += _left_by_cancel(shard, counts, before)
                reused += shard.num_reused
                for part in shard.parts:
                    parts.write(_encode({"shard": shard.id, "first_index": shard.first_index, **part}) + b"\n")
        return replace(counts, cancelled=cancelled, reused=reused)

    def _lines(self, shard: ShardRow) -> list[bytes]:
        """The shard's finished lines in item order; every part is checked against its digest."""
        end = shard.first_index + shard.num_items
        lines: dict[int, bytes] = {}
        for part in shards.parts_of(shard):
            data = self._store.get(part.key)
            if hashlib.sha256(data).hexdigest() != part.sha256:
                raise PartDamaged(f"{part.key} has changed since shard {shard.id} wrote it; restore it from a backup")
            for line in data.splitlines(keepends=True):
                index = Item.index_of(line)
                if shard.first_index <= index < end:
                    lines[index] = line
        return [line for _, line in sorted(lines.items())]


class _DigestFile:
    """A file that knows its own size and SHA-256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = 0
        self._sha256 = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.num_bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def close(self) -> Path:
        """Where it lies, whole."""
        self._file.close()
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def as_json(self) -> dict[str, Any]:
        return {"bytes": self.num_bytes, "sha256": self.sha256}


def _read_ahead(
    pool: Executor, read: Callable[[ShardRow], list[bytes]], rows: Iterator[ShardRow]
) -> Iterator[tuple[ShardRow, list[bytes]]]:
    """Each shard with its lines, in order, while those of the next ones are on their way."""
    coming: deque[tuple[ShardRow, Future[list[bytes]]]] = deque()
    for shard in rows:
        coming.append((shard, pool.submit(read, shard)))
        if len(coming) > 2 * FETCH_THREADS:
            shard, lines = coming.popleft()
            yield shard, lines.result()
    for shard, lines in coming:
        yield shard, lines.result()


def _all_shards(session: Session, job_id: str) -> Iterator[ShardRow]:
    from_index = 0
    while page := shards.list_shards(session, job_id, from_index=from_index):
        yield from page
        from_index = page[-1].first_index + 1
        session.expunge_all()


def _count(counts: Counts, failed: bool) -> Counts:
    return Counts(counts.total, counts.results + (not failed), counts.failures + failed)


def _left_by_cancel(shard: ShardRow, counts: Counts, before: Counts) -> int:
    """Items of a shard that were cancelled. Raises BooksDoNotBalance where its parts hold other than its row counts."""
    results, failures = counts.results - before.results, counts.failures - before.failures
    if (results, failures) != (shard.num_results, shard.num_failures):
        raise BooksDoNotBalance(
            f"shard {shard.id} counts {shard.num_results} results and {shard.num_failures} failures, "
            f"its parts hold {results} and {failures}"
        )
    return shard.num_items - results - failures if shard.state == ShardState.cancelled else 0


def _write_manifest(
    manifest: _DigestFile,
    job: JobRow,
    counts: Counts,
    results: _DigestFile,
    failures: _DigestFile,
    parts: _DigestFile,
) -> None:
    """JSON with a line for each field and each part, as a job may have more parts than memory holds."""
    fields = {
        "version": MANIFEST_VERSION,
        "job": job.id,
        "kind": job.kind,
        "model": job.model,
        "options": job.options,
        "items": asdict(counts),
        "objects": {"results.jsonl": results.as_json(), "failures.jsonl": failures.as_json()},
    }
    manifest.write(b"{\n")
    for name, value in fields.items():
        manifest.write(b' "%s": %s,\n' % (name.encode(), _encode(value)))
    manifest.write(b' "parts": [')
    with parts.close().open("rb") as lines:
        for number, line in enumerate(lines):
            manifest.write((b",\n  " if number else b"\n  ") + line.rstrip(b"\n"))
    manifest.write(b"\n ]\n}\n")


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
