"""An OpenAI batch's file to an ordinary job: a stream of lines to a manifest, its images, and notes for the answers.

All that it writes has the same name each time, and one transaction makes it count: a reader that dies leaves a batch
that is validated again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.exc import InterfaceError, OperationalError

from orchestrator.artifacts.base import ObjectMissing, ObjectStore, StoreError
from orchestrator.db import audit, jobs, openai_batches, openai_files, uploads, workers
from orchestrator.db.session import SessionFactory, try_lock
from orchestrator.db.tables import ModelRow, OpenaiBatchRow
from orchestrator.db.uploads import upload_prefix
from orchestrator.dispatch.one_by_one import OneByOne
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.image_refs import BUNDLE_BYTES
from orchestrator.domain.jobs import JobKind, options_for
from orchestrator.domain.openai_answers import encode, refused_line
from orchestrator.domain.openai_batches import ENDPOINTS, MAX_ERRORS, OpenaiState
from orchestrator.domain.openai_lines import Line, LineRefused, read_line
from orchestrator.domain.used_ids import UsedIds
from orchestrator.telemetry import get_logger

MAX_TRIES = 5
FILLING_SECONDS = 3600  # for so long at least it is measured what this puts into an upload
LOOK_EVERY = 500  # lines, whether somebody cancelled meanwhile


@dataclass(frozen=True)
class LineLimits:
    """What a batch file may hold."""

    lines: int
    line_bytes: int
    image_bytes: int


class _BatchRefused(Exception):
    """Nothing of the file can be used."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "line": None, "param": "input_file_id"}


class _CancelledMeanwhile(Exception):
    pass


@dataclass
class _Read:
    """What came of the lines so far."""

    model: ModelRow | None = None
    num_items: int = 0
    num_seeds: int = 0
    num_refused: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    used_ids: UsedIds = field(default_factory=UsedIds)


class OpenaiReader:
    """Makes jobs of batches.

    Args:
        shard_items: of jobs of each kind.
    """

    def __init__(
        self, sessions: SessionFactory, store: ObjectStore, *, limits: LineLimits, shard_items: dict[JobKind, int]
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._limits = limits
        self._shard_items = shard_items
        self._one_by_one = OneByOne("openai-reader", "openai_batch")

    def run_once(self, now: datetime) -> int:
        """Validate the batch whose turn it is; 1 if there was one. Teams take turns."""
        with self._sessions() as session:
            batch_ids = openai_batches.list_unread(session)
        return self._one_by_one.run(batch_ids, self._read, self._give_up, at_most=1)

    def _read(self, batch_id: str) -> bool:
        with self._sessions() as lock:
            if not try_lock(lock, f"openai-read:{batch_id}"):
                return False
            with self._sessions.begin() as session:
                batch = openai_batches.get_batch(session, batch_id)
                if batch.state != OpenaiState.validating:
                    return False  # another reader was quicker, or it was cancelled
                if batch.upload_id is None:
                    upload, _ = uploads.create_upload(session, batch.team_id, idempotency_key=f"openai/{batch_id}")
                    prefix, has_upload = upload_prefix(batch.team_id, upload.id), False
                    upload_id = upload.id
                else:
                    upload_id, has_upload = batch.upload_id, True
                    prefix = upload_prefix(batch.team_id, upload_id)
                uploads.expect_objects(session, upload_id, seconds=FILLING_SECONDS)
            try:
                self._validate(batch, upload_id, f"{prefix}{batch_id}/", has_upload=has_upload)
            except _BatchRefused as refused:
                self._fail(batch_id, [refused.error])
            except _CancelledMeanwhile:
                pass
            return True

    def _validate(self, batch: OpenaiBatchRow, upload_id: str, prefix: str, *, has_upload: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="janus-openai-") as folder:
            paths = {name: Path(folder) / name for name in ("manifest.jsonl", "lines.jsonl", "refused.jsonl")}
            with (
                paths["manifest.jsonl"].open("wb") as manifest,
                paths["lines.jsonl"].open("wb") as lines,
                paths["refused.jsonl"].open("wb") as refused,
            ):
                read = self._read_lines(
                    batch, _Images(self._store, prefix, batch.id), manifest, lines, refused, has_upload
                )
            if read.num_items == 0 and read.num_refused == 0:
                raise _BatchRefused("empty_file", "the input file has no lines")
            for name, path in paths.items():
                self._store.put_file(prefix + name, path, "application/jsonl")
            if read.model is None:
                self._fail_all_lines(batch, read, paths["refused.jsonl"])
            else:
                self._start(batch, upload_id, read, read.model.name)

    def _read_lines(
        self,
        batch: OpenaiBatchRow,
        images: _Images,
        manifest: BinaryIO,
        lines: BinaryIO,
        refused: BinaryIO,
        has_upload: bool,
    ) -> _Read:
        read = _Read()
        for number, raw in enumerate(self._raw_lines(batch), 1):
            if number % LOOK_EVERY == 0:
                self._look_whether_cancelled(batch.id)
            if not raw.strip():
                continue
            if read.num_items + read.num_refused >= self._limits.lines:
                message = (
                    f"the input file has more than {self._limits.lines} lines (JANUS_MAX_OPENAI_LINES); make several"
                )
                raise _BatchRefused("too_many_lines", message)
            try:
                line = read_line(
                    raw,
                    endpoint=batch.endpoint,
                    has_upload=has_upload,
                    max_line_bytes=self._limits.line_bytes,
                    max_image_bytes=self._limits.image_bytes,
                )
                self._check_against_others(read, line)
            except LineRefused as error:
                read.num_refused += 1
                refused.write(encode(refused_line(batch.id, number, error)))
                if len(read.errors) < MAX_ERRORS:
                    found = {"code": error.code, "message": error.message, "line": number, "param": error.param}
                    read.errors.append(found)
                continue
            manifest.write(encode(_item_of(line, images, read.num_seeds)))
            lines.write(encode({"custom_id": line.custom_id, "line": number, "as_link": line.as_link}))
            read.num_items += 1
            read.num_seeds += line.num_seeds
        images.flush()
        return read

    def _raw_lines(self, batch: OpenaiBatchRow) -> Iterator[bytes]:
        with self._sessions() as session:
            file = openai_files.find_file(session, batch.input_file_id)
        if file is None or file.team_id != batch.team_id:
            raise _BatchRefused("file_deleted", f"the input file {batch.input_file_id} was deleted or has expired")
        try:
            yield from self._store.lines(file.key, max_line_bytes=self._limits.line_bytes)
        except ObjectMissing:
            raise _BatchRefused("file_deleted", f"the bytes of {file.id} are gone; send the file again") from None

    def _check_against_others(self, read: _Read, line: Line) -> None:
        """A batch is of one model, and its ids differ: the first line that is right sets the model."""
        model = read.model or self._find_model(line.model)
        if model is None:
            what = f"is {line.model[:100]!r}, which no worker has ever served; see GET /v1/models"
            raise _refused(line, "model_not_found", "body.model", what)
        if line.model != model.name:
            what = f"is {line.model[:100]!r}, and this batch is of {model.name!r}; make a batch for each model"
            raise _refused(line, "mismatched_model", "body.model", what)
        if line.size and model.image_size and line.size != (model.image_size, model.image_size):
            what = f"must be 'auto' or '{model.image_size}x{model.image_size}', which is what {model.name} draws"
            raise _refused(line, "invalid_value", "body.size", what)
        if not read.used_ids.add(line.custom_id, read.num_items):
            raise _refused(line, "duplicate_custom_id", "custom_id", "was used before; ids must differ within a batch")
        read.model = model

    def _find_model(self, name: str) -> ModelRow | None:
        with self._sessions() as session:
            return workers.find_model(session, name)

    def _look_whether_cancelled(self, batch_id: str) -> None:
        with self._sessions() as session:
            if openai_batches.get_batch(session, batch_id).state != OpenaiState.validating:
                raise _CancelledMeanwhile

    # --- How it ends ----------------------------------------------------------------------------------------------

    def _start(self, batch: OpenaiBatchRow, upload_id: str, read: _Read, model: str) -> None:
        kind = ENDPOINTS[batch.endpoint]
        with self._sessions() as session:
            try:
                uploads.get_upload(session, batch.team_id, upload_id, hold=True)
            except NotFound:
                raise _BatchRefused("upload_deleted", f"the upload {upload_id} was deleted") from None
            job, _ = jobs.create_job(
                session,
                batch.team_id,
                name=f"OpenAI batch {batch.id}",
                kind=kind,
                model=model,
                options=options_for(kind, {}),
                input={"upload": upload_id, "manifest": f"{batch.id}/manifest.jsonl"},
                shard_items=max(1, self._shard_items[kind] * read.num_items // read.num_seeds),
                deadline_at=batch.expires_at,
            )
            openai_batches.keep_upload(session, batch.id, upload_id)
            where = {"team_id": batch.team_id, "address": "the dispatcher"}
            audit.record(session, "job.created", job.id, **where, kind=kind, model=model, openai_batch=batch.id)
            if openai_batches.start(session, batch.id, job_id=job.id, model=model, num_refused=read.num_refused):
                session.commit()
                get_logger().info("openai_batch_started", job=job.id, team=batch.team_id, items=read.num_items)

    def _fail_all_lines(self, batch: OpenaiBatchRow, read: _Read, refused: Path) -> None:
        """No line was right: why stands in an error file, as it does where some were."""
        file_id = new_id("file")
        key = f"{openai_files.file_prefix(batch.team_id)}{batch.id}-errors.jsonl"
        self._store.put_file(key, refused, "application/jsonl")
        with self._sessions() as session:
            openai_files.add_file(
                session,
                batch.team_id,
                file_id=file_id,
                key=key,
                filename=f"{batch.id}_error.jsonl",
                purpose="batch_output",
                num_bytes=refused.stat().st_size,
                expires_seconds=batch.output_seconds,
            )
            if openai_batches.fail(session, batch.id, read.errors, num_refused=read.num_refused, error_file_id=file_id):
                session.commit()

    def _fail(self, batch_id: str, errors: list[dict[str, Any]]) -> None:
        with self._sessions.begin() as session:
            openai_batches.fail(session, batch_id, errors)
        get_logger().warning("openai_batch_failed", code=errors[0]["code"])

    def _give_up(self, batch_id: str, tries: int, error: Exception) -> None:
        """A store or a database that is away is waited for; anything else fails the batch after a few tries."""
        if tries >= MAX_TRIES and not isinstance(error, StoreError | OperationalError | InterfaceError):
            message = f"the input file could not be read: {type(error).__name__}: {error}"[:1000]
            self._fail(batch_id, [{"code": "unreadable", "message": message, "line": None, "param": None}])


class _Images:
    """Images that came inside lines, to objects of the upload."""

    def __init__(self, store: ObjectStore, prefix: str, folder: str) -> None:
        self._store, self._prefix, self._folder = store, prefix, folder
        self._number = 0
        self._data = bytearray()

    def add(self, data: bytes) -> dict[str, Any]:
        """Where a manifest line finds it."""
        if self._data and len(self._data) + len(data) > BUNDLE_BYTES:
            self.flush()
        offset = len(self._data)
        self._data += data
        return {"object": f"{self._folder}/{self._name()}", "offset": offset, "num_bytes": len(data)}

    def flush(self) -> None:
        if self._data:
            self._store.put(self._prefix + self._name(), bytes(self._data))
            self._data = bytearray()
            self._number += 1

    def _name(self) -> str:
        return f"images-{self._number:06d}"


def _refused(line: Line, code: str, param: str, what: str) -> LineRefused:
    refused = LineRefused(f"{param} {what}", code=code, param=param)
    refused.custom_id = line.custom_id
    return refused


def _item_of(line: Line, images: _Images, num_seeds: int) -> dict[str, Any]:
    """The manifest line. Without a seed of its own it begins behind the seeds of those before it."""
    seed = line.seed if line.seed is not None else num_seeds
    item: dict[str, Any] = {"id": line.custom_id, "seed": seed}
    if line.prompt is not None:
        item["prompt"] = line.prompt
    if line.options:
        item["options"] = line.options
    if line.images:
        item["image"] = [image if isinstance(image, str) else images.add(image) for image in line.images]
    return item
