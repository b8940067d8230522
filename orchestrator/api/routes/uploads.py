"""Uploads: a prefix to write below, by presigned URL; bytes never pass through here."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api.dependencies import AppServices, DbSession, Writer
from orchestrator.db import uploads
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.items import is_safe_name
from orchestrator.schemas import UploadUrlsCreate, UploadView, UrlsView

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.post("", status_code=201)
def create_upload(session: DbSession, caller: Writer) -> UploadView:
    """Make an upload."""
    upload = uploads.create_upload(session, caller.team_id)
    return UploadView(id=upload.id, created_at=upload.created_at)


@router.post("/{upload_id}/urls")
def create_urls(
    upload_id: str, body: UploadUrlsCreate, session: DbSession, caller: Writer, services: AppServices
) -> UrlsView:
    """A presigned PUT for each name."""
    uploads.get_upload(session, caller.team_id, upload_id)
    for name in body.names:
        if not is_safe_name(name):
            raise InvalidRequest(f"{name!r} is not a relative name that stays below the upload")
    prefix = uploads.upload_prefix(caller.team_id, upload_id)
    seconds = services.settings.presigned_url_seconds
    urls = [services.store.presign_put(prefix + name, expires_seconds=seconds) for name in body.names]
    return UrlsView(urls=urls, expires_seconds=seconds)
