"""The shapes of the OpenAI contract: files, batches and refusals, as its clients read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from orchestrator.db.tables import OpenaiBatchRow, OpenaiFileRow
from orchestrator.domain.jobs import Counts
from orchestrator.domain.openai_batches import OpenaiState

MIN_KEEP_SECONDS, MAX_KEEP_SECONDS = 3600, 2_592_000


class OpenaiError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenaiRefusal(BaseModel):
    """Every error under /openai/v1."""

    error: OpenaiError


class OpenaiFile(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class OpenaiFileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class OpenaiFilePage(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenaiFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OutputExpiresAfter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_KEEP_SECONDS, le=MAX_KEEP_SECONDS)


LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
LabelValue = Annotated[str, StringConstraints(max_length=512)]


class OpenaiBatchCreate(BaseModel):
    """`upload` is ours: what image names of the lines lie below; `extra_body` of the `openai` package sends it."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[str, StringConstraints(max_length=100)]
    endpoint: Literal["/v1/chat/completions", "/v1/images/generations"]
    completion_window: Annotated[str, StringConstraints(max_length=20)]
    metadata: dict[LabelKey, LabelValue] | None = Field(None, max_length=16)
    output_expires_after: OutputExpiresAfter | None = None
    upload: Annotated[str, StringConstraints(max_length=100)] | None = None


class RequestCounts(BaseModel):
    """`total` is what the file holds; lines that have no turn yet, or will have none, are in neither of the others."""

    total: int
    completed: int
    failed: int


class LineError(BaseModel):
    code: str | None
    message: str | None
    line: int | None
    param: str | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[LineError]


class OpenaiBatch(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: OpenaiState
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, Any] | None
    job: str | None  # ours: what works on it


class OpenaiBatchPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenaiBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


def view_file(file: OpenaiFileRow) -> OpenaiFile:
    return OpenaiFile(
        id=file.id,
        bytes=file.num_bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=_seconds(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


def view_files(found: Sequence[OpenaiFileRow], limit: int) -> OpenaiFilePage:
    """found: one more than `limit` where there are more."""
    data = [view_file(file) for file in found[:limit]]
    return OpenaiFilePage(data=data, has_more=len(found) > limit, **_ends(data))


def view_batch(batch: OpenaiBatchRow, counts: Counts) -> OpenaiBatch:
    """counts: of the batch's job, nothing where it has none (any more)."""
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return OpenaiBatch(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=[LineError(**error) for error in batch.errors]) if batch.errors else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=OpenaiState(batch.state),
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_at.timestamp()),
        expires_at=int(batch.expires_at.timestamp()),
        request_counts=RequestCounts(
            total=counts.total + batch.num_refused,
            completed=counts.results,
            failed=counts.failures + batch.num_refused,
        ),
        metadata=batch.labels,
        job=batch.job_id,
        **{f"{name}_at": _seconds(getattr(batch, f"{name}_at")) for name in times},
    )


def view_batches(found: Sequence[OpenaiBatchRow], counts: dict[str, Counts], limit: int) -> OpenaiBatchPage:
    """found: one more than `limit` where there are more. counts: of their jobs, by id."""
    nothing = Counts(0, 0, 0)
    data = [view_batch(batch, counts.get(batch.job_id or "", nothing)) for batch in found[:limit]]
    return OpenaiBatchPage(data=data, has_more=len(found) > limit, **_ends(data))


def _ends(data: Sequence[OpenaiFile] | Sequence[OpenaiBatch]) -> dict[str, str | None]:
    return {"first_id": data[0].id, "last_id": data[-1].id} if data else {"first_id": None, "last_id": None}


def _seconds(at: datetime | None) -> int | None:
    return int(at.timestamp()) if at is not None else None
