"""Deletes jobs: those kept for JANUS_KEEP_DAYS, and those that somebody deleted. Objects first, then rows."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import deletion, jobs, reuse
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.tables import JobRow
from orchestrator.db.uploads import upload_prefix
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.telemetry import get_logger

MAX_JOBS = 20  # of one round; teams take turns
MAX_OBJECTS = 10_000  # of one job in one round, so that large jobs do not hold up small ones
BATCH = 1000  # objects of one request to the store, and rows of one table in one transaction


class Cleaner:
    """Goes on where a process that died left off: a job stays marked until its last row goes."""

    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, keep_days: int, reuse_days: int) -> None:
        self._sessions = sessions
        self._store = store
        self._keep_days, self._reuse_days = keep_days, reuse_days
        self._one_by_one = OneByOne("cleaner", "job")

    def run_once(self, now: datetime) -> int:
        """Mark what was kept long enough, and delete some of what is marked; how many jobs that moved on.

        Results that are too old to be used again are forgotten beside it.
        """
        with self._sessions.begin() as session:
            reuse.forget_old(session, days=self._reuse_days, limit=BATCH)
        if self._keep_days:
            with self._sessions.begin() as session:
                deletion.mark_outdated(session, keep_days=self._keep_days, limit=MAX_JOBS)
        with self._sessions() as session:
            job_ids = deletion.list_marked(session, limit=MAX_JOBS)
        return self._one_by_one.run(job_ids, self._delete, _say_nothing)

    def _delete(self, job_id: str) -> bool:
        with self._sessions() as lock:
            if not try_lock(lock, f"delete:{job_id}"):
                return False
            with self._sessions() as session:
                job = jobs.find_job(session, job_id)
            if job is None:
                return False  # another dispatcher was quicker
            if self._upload_is_gone(job) and self._prefix_is_gone(f"jobs/{job_id}/"):
                self._delete_rows(job_id)
            return True

    def _upload_is_gone(self, job: JobRow) -> bool:
        """Whether nothing of its upload is left that is no other job's too."""
        if job.upload_id is None:
            return True
        with self._sessions.begin() as session:
            if not deletion.forget_upload(session, job.upload_id):
                return True
        return self._prefix_is_gone(upload_prefix(job.team_id, job.upload_id))

    def _prefix_is_gone(self, prefix: str) -> bool:
        """Delete up to MAX_OBJECTS below it; whether none is left."""
        for _ in range(MAX_OBJECTS // BATCH):
            keys = [stored.key for stored in islice(self._store.list(prefix), BATCH)]
            if not keys:
                return True
            self._store.delete(keys)
        return False

    def _delete_rows(self, job_id: str) -> None:
        gone = False
        while not gone:
            with self._sessions.begin() as session:
                gone = deletion.delete_rows(session, job_id, limit=BATCH)
        get_logger().info("job_deleted")


def _say_nothing(job_id: str, tries: int, error: Exception) -> None:
    """The log has it; a later round tries again."""
