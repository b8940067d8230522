"""Files of OpenAI clients: the one contract of ours by which bytes pass through the API."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Reader, Writer
from orchestrator.api.openai_shapes import (
    MAX_KEEP_SECONDS,
    MIN_KEEP_SECONDS,
    OpenaiFile,
    OpenaiFileDeleted,
    OpenaiFilePage,
    view_file,
    view_files,
)
from orchestrator.db import openai_files, quotas
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.ids import new_id
from orchestrator.domain.names import clean_message

router = APIRouter(prefix="/openai/v1/files", tags=["openai"])
MAX_NAME_LENGTH = 255
CHUNK_BYTES = 2**20
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": {"application/octet-stream": {}}},
    404: {},
}
Anchor = Annotated[Literal["created_at"], Form(alias="expires_after[anchor]")]
Seconds = Annotated[int | None, Form(alias="expires_after[seconds]", ge=MIN_KEEP_SECONDS, le=MAX_KEEP_SECONDS)]


@router.post("")
def create_file(
    file: UploadFile,
    purpose: Annotated[Literal["batch"], Form()],
    session: DbSession,
    caller: Writer,
    services: AppServices,
    audit: Audit,
    anchor: Anchor = "created_at",
    expires_seconds: Seconds = None,
) -> OpenaiFile:
    """Keep a file of requests, at most JANUS_MAX_FILE_BYTES."""
    num_bytes, most = file.size or 0, services.settings.max_file_bytes
    if num_bytes > most:
        raise InvalidRequest(f"the file has {num_bytes} bytes; at most {most} are accepted (JANUS_MAX_FILE_BYTES)")
    quotas.require_space(session, caller.team_id)
    file_id = new_id("file")
    key = openai_files.file_prefix(caller.team_id) + file_id
    services.store.put_stream(key, _chunks(file.file), "application/jsonl")
    filename = clean_message(file.filename or "upload.jsonl")[:MAX_NAME_LENGTH]
    made = openai_files.add_file(
        session,
        caller.team_id,
        file_id=file_id,
        key=key,
        filename=filename,
        purpose=purpose,
        num_bytes=num_bytes,
        expires_seconds=expires_seconds,
    )
    audit.record("openai_file.created", made.id, num_bytes=num_bytes)
    return view_file(made)


@router.get("", responses={404: {}})
def list_files(
    session: DbSession,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> OpenaiFilePage:
    """The team's files."""
    newest_first = order == "desc"
    found = openai_files.list_files(session, purpose=purpose, after=after, limit=limit + 1, newest_first=newest_first)
    return view_files(found, limit)


@router.get("/{file_id}", responses={404: {}})
def get_file(file_id: Id, session: DbSession, caller: Reader) -> OpenaiFile:
    """One file, without its bytes."""
    return view_file(openai_files.get_file(session, file_id))


@router.delete("/{file_id}", responses={404: {}})
def delete_file(file_id: Id, session: DbSession, caller: Writer, audit: Audit) -> OpenaiFileDeleted:
    """Delete a file: gone from here at once, from the store soon after."""
    file = openai_files.get_file(session, file_id)
    openai_files.mark_deleted(session, file)
    audit.record("openai_file.deleted", file.id)
    return OpenaiFileDeleted(id=file.id)


@router.get("/{file_id}/content", response_class=StreamingResponse, responses=CONTENT)
def get_content(file_id: Id, session: DbSession, caller: Reader, services: AppServices) -> StreamingResponse:
    """The bytes of a file."""
    file = openai_files.get_file(session, file_id)
    chunks = services.store.chunks(file.key)
    first = next(chunks, b"")  # what is not there is said before the answer begins
    headers = {"Content-Length": str(file.num_bytes)}
    return StreamingResponse(chain([first], chunks), media_type="application/octet-stream", headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
