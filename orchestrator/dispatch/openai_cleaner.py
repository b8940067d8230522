"""Deletes files of OpenAI clients: deleted ones, and those whose time is over. Objects first, then rows."""

from __future__ import annotations

from datetime import datetime

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import openai_batches, openai_files
from orchestrator.db.session import SessionFactory

BATCH = 100


class OpenaiCleaner:
    """Goes on where a process that died left off: a file stays marked until its row goes."""

    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, keep_days: int) -> None:
        self._sessions = sessions
        self._store = store
        self._keep_days = keep_days

    def run_once(self, now: datetime) -> int:
        """Mark what was kept long enough, and delete some of what is marked; how many files and batches went."""
        with self._sessions.begin() as session:
            openai_files.mark_expired(session, now, keep_days=self._keep_days, limit=BATCH)
            forgotten = 0
            if self._keep_days:
                forgotten = openai_batches.forget_old(session, keep_days=self._keep_days, limit=BATCH)
        with self._sessions() as session:
            marked = openai_files.list_marked(session, limit=BATCH)
        if marked:
            self._store.delete([file.key for file in marked])
            with self._sessions.begin() as session:
                openai_files.delete_rows(session, [file.id for file in marked])
        return forgotten + len(marked)
