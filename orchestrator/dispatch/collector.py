"""Orphans: objects below jobs/, uploads/ and files/ that no row names or can name any more. docs/lifecycle.md has why.

It goes page by page through the store's listing, a fifth of a second each second, so that it is slow, holds little in
memory, and stops when it is told to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice

from orchestrator.artifacts.base import ObjectStore, StoredObject, StoreRefused
from orchestrator.db import naming
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.uploads import upload_prefix
from orchestrator.telemetry import get_logger

PAGE = 1000
ROUND_SECONDS = 0.2
SAFE_AGE = timedelta(days=1)  # far more than any lease, and than clocks may differ: S3 refuses signatures of 15 minutes
UNUSED_AGE = timedelta(days=7)  # an upload that no job used, and into which nothing came for so long


@dataclass(frozen=True)
class Found:
    """Orphans of one page; none where the page had none."""

    keys: tuple[str, ...] = ()
    num_bytes: int = 0


class Collector:
    """Args: `dry_run` finds and deletes nothing."""

    def __init__(
        self, sessions: SessionFactory, store: ObjectStore, *, presigned_url_seconds: int, dry_run: bool = False
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._link = timedelta(seconds=presigned_url_seconds)
        self._dry_run = dry_run

    def pages(self, now: datetime) -> Iterator[Found]:
        """Go through the store once, and delete; no pages where another process is at it."""
        with self._sessions() as lock:
            if not try_lock(lock, "collect"):
                return
            before, unused = now - SAFE_AGE - self._link, set[str]()
            yield from self._forget_uploads(now - UNUSED_AGE - self._link, unused)
            yield from self._orphans("uploads/", before, 3, unused)
            yield from self._orphans("jobs/", before, 2, unused)
            yield from self._orphans("files/", before, 2, unused)

    def _forget_uploads(self, before: datetime, unused: set[str]) -> Iterator[Found]:
        """Uploads from before then, without a job, into which nothing was put since: their objects are orphans now.

        unused: gets their ids, as in a dry run their rows stay.
        """
        after_id = ""
        while True:
            with self._sessions() as session:
                page = naming.list_unused_uploads(session, before, after_id=after_id, limit=PAGE)
            for upload in page:
                after_id, prefix = upload.id, upload_prefix(upload.team_id, upload.id)
                if all(stored.modified_at < before for stored in self._store.list(prefix)) and self._forget(upload.id):
                    unused.add(upload.id)
                yield Found()
            if len(page) < PAGE:
                return

    def _forget(self, upload_id: str) -> bool:
        """Whether nobody made a job of it meanwhile."""
        if self._dry_run:
            return True
        with self._sessions.begin() as session:
            return naming.forget_unused_upload(session, upload_id)

    def _orphans(self, prefix: str, before: datetime, depth: int, unused: set[str]) -> Iterator[Found]:
        """Below a prefix, owner by owner; an owner is so many names of the path deep, a job or an upload."""
        for path, objects in groupby(self._store.list(prefix), lambda stored: stored.key.split("/")[:depth]):
            while page := list(islice(objects, PAGE)):
                old = [stored for stored in page if stored.modified_at < before]
                orphans = self._find(path, {stored.key for stored in old}, unused)
                yield self._take([stored for stored in old if stored.key in orphans])

    def _find(self, path: list[str], keys: set[str], unused: set[str]) -> set[str]:
        if not keys or path[-1] in unused:
            return keys
        with self._sessions() as session:
            return naming.orphans_of(session, path, list(keys))

    def _take(self, orphans: list[StoredObject]) -> Found:
        keys = tuple(stored.key for stored in orphans)
        if keys and not self._dry_run:
            try:
                self._store.delete(keys)
            except StoreRefused as error:  # one that it will not let go must not keep all that come after it
                get_logger().warning("orphans_kept", error=str(error)[:300])
                return Found()
            get_logger().info("orphans_deleted", objects=len(keys), first=keys[0])
        return Found(keys, sum(stored.num_bytes for stored in orphans))


class EveryHours:
    """Lets a collector go through the store when the process starts, and so many hours after it was through."""

    def __init__(self, collector: Collector, hours: float) -> None:
        self._collector = collector
        self._pause = timedelta(hours=hours)
        self._pages: Iterator[Found] | None = None
        self._next_at: datetime | None = None

    def run_once(self, now: datetime) -> int:
        """Some pages; always 0, as the next ones have time. After an error it begins anew."""
        if self._pages is None:
            if self._next_at is not None and now < self._next_at:
                return 0
            self._pages = self._collector.pages(now)
        pages, self._pages = self._pages, None
        end_at = time.monotonic() + ROUND_SECONDS
        while next(pages, None) is not None:
            if time.monotonic() > end_at:
                self._pages = pages
                return 0
        self._next_at = now + self._pause
        return 0
