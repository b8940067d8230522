"""The job of an OpenAI batch has ended: its output and error files, in that contract's words; then the batch ends.

Writing them can be repeated at will: the same results give the same lines under the same names.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.artifacts.base import ObjectMissing, ObjectStore
from orchestrator.db import jobs, openai_batches, openai_files
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.tables import JobRow, OpenaiBatchRow
from orchestrator.db.uploads import upload_prefix
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain import openai_answers
from orchestrator.domain.jobs import JobState
from orchestrator.domain.openai_batches import OpenaiState, state_after
from orchestrator.domain.shards import image_name
from orchestrator.telemetry import get_logger

MAX_LINE_BYTES = 16 * 2**20
MAX_TRIES = 5  # to find an object that is not there


@dataclass
class _Written:
    """Of one file."""

    num_lines: int = 0
    num_bytes: int = 0

    def add(self, line: bytes) -> bytes:
        self.num_lines += 1
        self.num_bytes += len(line)
        return line


class OpenaiFinisher:
    """Ends batches.

    Args:
        link_seconds: for how long the links to images work, where a line asked for these.
    """

    def __init__(self, sessions: SessionFactory, store: ObjectStore, *, link_seconds: int) -> None:
        self._sessions = sessions
        self._store = store
        self._link_seconds = link_seconds
        self._one_by_one = OneByOne("openai-finisher", "openai_batch")

    def run_once(self, now: datetime) -> int:
        """End the next batch whose job has ended: 1 if there was one. Teams take turns."""
        with self._sessions() as session:
            batch_ids = openai_batches.list_to_finish(session)
        return self._one_by_one.run(batch_ids, self._finish, self._give_up, at_most=1)

    def _finish(self, batch_id: str) -> bool:
        with self._sessions() as lock:
            if not try_lock(lock, f"openai-read:{batch_id}") or not try_lock(lock, f"openai-finish:{batch_id}"):
                return False
            with self._sessions.begin() as session:
                openai_batches.begin_finalizing(session, batch_id)
            with self._sessions() as session:
                batch = openai_batches.get_batch(session, batch_id)
                if batch.state != OpenaiState.finalizing:
                    return False  # another finisher was quicker
                job = jobs.find_job(session, batch.job_id) if batch.job_id else None
            if job is not None and job.deleted_at is not None:
                job = None
            state = self._write(batch, job)
            get_logger().info("openai_batch_ended", team=batch.team_id, state=state)
            return True

    def _write(self, batch: OpenaiBatchRow, job: JobRow | None) -> OpenaiState:
        """Both files, then the end of the batch in one transaction with their rows."""
        if batch.job_id is None:  # cancelled while it was validated
            return self._end(batch, OpenaiState.cancelled, {}, [])
        job_state = JobState(job.state) if job is not None else None
        state = state_after(job_state, cancel_asked=batch.cancelling_at is not None)
        if job is None:
            message = f"{batch.job_id} was deleted before the batch's files were written"
            return self._end(batch, state, {}, [_trouble("job_deleted", message)])
        errors = [_trouble("job_failed", job.state_reason)]
        prefix = openai_files.file_prefix(batch.team_id)
        keys = {"output": f"{prefix}{batch.id}-output.jsonl", "error": f"{prefix}{batch.id}-errors.jsonl"}
        written = {name: _Written() for name in keys}
        with tempfile.TemporaryDirectory(prefix="janus-openai-") as folder:
            path = Path(folder) / "errors"
            with path.open("wb") as failed:
                self._copy_refused(batch, failed, written["error"])
                lines = self._answers(batch, job, state, failed, written)
                self._store.put_stream(keys["output"], lines, "application/jsonl")
            self._store.put_file(keys["error"], path, "application/jsonl")
        self._store.delete([key for name, key in keys.items() if not written[name].num_lines])
        made = {keys[name]: each.num_bytes for name, each in written.items() if each.num_lines}
        return self._end(batch, state, made, errors if job_state is JobState.failed else [])

    def _copy_refused(self, batch: OpenaiBatchRow, failed: BinaryIO, written: _Written) -> None:
        for line in self._own_lines(batch, "refused.jsonl"):
            failed.write(written.add(line + b"\n"))

    def _answers(
        self, batch: OpenaiBatchRow, job: JobRow, state: OpenaiState, failed: BinaryIO, written: dict[str, _Written]
    ) -> Iterator[bytes]:
        """Lines of the output file in item order; those of the error file are written on the way."""
        results = self._results(job)
        result = next(results, None)
        for index, raw in enumerate(self._own_lines(batch, "lines.jsonl")):
            line = json.loads(raw)
            where = (batch.id, line["line"], line["custom_id"])
            if result is None or result["index"] != index:
                expired = state is OpenaiState.expired
                answer = openai_answers.unfinished_line(*where, expired=expired)
                failed.write(written["error"].add(openai_answers.encode(answer)))
                continue
            if "failure" in result:
                answer = openai_answers.failed_line(*where, result["failure"])
                failed.write(written["error"].add(openai_answers.encode(answer)))
            else:
                yield written["output"].add(openai_answers.encode(self._answer(where, job, result, line["as_link"])))
            result = next(results, None)

    def _answer(
        self, where: tuple[str, int, str], job: JobRow, result: dict[str, Any], as_link: bool
    ) -> dict[str, Any]:
        created = int((job.finished_at or job.created_at).timestamp())
        if "caption" in result:
            return openai_answers.caption_line(*where, result, created)

        def content(image: dict[str, Any]) -> dict[str, str]:
            key = f"jobs/{job.id}/{image_name(image['file'], image['sha256'])}"
            if as_link:
                return {"url": self._store.presign_get(key, expires_seconds=self._link_seconds)}
            return {"b64_json": base64.b64encode(self._store.get(key)).decode()}

        return openai_answers.images_line(*where, result, created, content)

    def _results(self, job: JobRow) -> Iterator[dict[str, Any]]:
        """What the job's finisher merged, in item order; nothing of a job that failed before it ran."""
        if job.state == JobState.failed:
            return
        for line in self._store.lines(f"jobs/{job.id}/results.jsonl", max_line_bytes=MAX_LINE_BYTES):
            yield json.loads(line)

    def _own_lines(self, batch: OpenaiBatchRow, name: str) -> Iterator[bytes]:
        key = f"{upload_prefix(batch.team_id, batch.upload_id or '')}{batch.id}/{name}"
        return self._store.lines(key, max_line_bytes=MAX_LINE_BYTES)

    def _end(
        self, batch: OpenaiBatchRow, state: OpenaiState, made: dict[str, int], errors: list[dict[str, Any]]
    ) -> OpenaiState:
        """made: bytes of each file that has lines, by its key."""
        ids: dict[str, str | None] = {"output": None, "errors": None}
        with self._sessions() as session:
            for key, num_bytes in made.items():
                name = "output" if key.endswith("-output.jsonl") else "errors"
                ids[name] = openai_files.add_file(
                    session,
                    batch.team_id,
                    key=key,
                    filename=f"{batch.id}_{name.removesuffix('s')}.jsonl",
                    purpose="batch_output",
                    num_bytes=num_bytes,
                    expires_seconds=batch.output_seconds,
                ).id
            if openai_batches.finish(
                session, batch.id, state, output_file_id=ids["output"], error_file_id=ids["errors"], errors=errors
            ):
                session.commit()
        return state

    def _give_up(self, batch_id: str, tries: int, error: Exception) -> None:
        """What is away is waited for; results that somebody deleted from the store are not."""
        if tries >= MAX_TRIES and isinstance(error, ObjectMissing):
            with self._sessions() as session:
                batch = openai_batches.get_batch(session, batch_id)
            self._end(batch, OpenaiState.failed, {}, [_trouble("result_missing", str(error))])


def _trouble(code: str, message: str | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": None, "param": None}
