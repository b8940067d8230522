"""Uploads: a prefix to write below, by presigned URL; bytes never pass through here."""

from __future__ import annotations

from fastapi import APIRouter, Response

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, IdempotencyKey, Reader, Writer
from orchestrator.db import quotas, uploads
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.names import is_safe_name
from orchestrator.schemas import UploadUrlsCreate, UploadView, UrlsView

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.post("", status_code=201, responses={200: {"model": UploadView}})
def create_upload(
    session: DbSession, caller: Writer, response: Response, audit: Audit, idempotency_key: IdempotencyKey = None
) -> UploadView:
    """Make an upload. The same `Idempotency-Key` answers with the same upload (200)."""
    upload, created = uploads.create_upload(session, caller.team_id, idempotency_key=idempotency_key)
    response.status_code = 201 if created else 200
    if created:
        quotas.require_space(session, caller.team_id)
        audit.record("upload.created", upload.id)
    return UploadView(id=upload.id, created_at=upload.created_at)


@router.post("/{upload_id}/urls", responses={404: {}})
def create_urls(
    upload_id: Id, body: UploadUrlsCreate, session: DbSession, caller: Writer, services: AppServices, audit: Audit
) -> UrlsView:
    """A presigned PUT for each name."""
    seconds = services.settings.presigned_url_seconds
    keys = _keys(session, caller, upload_id, body.names)
    quotas.require_space(session, caller.team_id)
    uploads.expect_objects(session, upload_id, seconds=seconds)
    urls = [services.store.presign_put(key, expires_seconds=seconds) for key in keys]
    audit.record("upload.links_to_write", upload_id, num_links=len(urls))
    return UrlsView(urls=urls, expires_seconds=seconds)


@router.post("/{upload_id}/downloads", responses={404: {}})
def create_downloads(
    upload_id: Id, body: UploadUrlsCreate, session: DbSession, caller: Reader, services: AppServices
) -> UrlsView:
    """A presigned GET for each name: what was sent, read back."""
    seconds = services.settings.presigned_url_seconds
    keys = _keys(session, caller, upload_id, body.names)
    urls = [services.store.presign_get(key, expires_seconds=seconds) for key in keys]
    return UrlsView(urls=urls, expires_seconds=seconds)


def _keys(session: DbSession, caller: Caller, upload_id: str, names: list[str]) -> list[str]:
    uploads.get_upload(session, caller.team_id, upload_id)
    for name in names:
        if not is_safe_name(name):
            raise InvalidRequest(f"{name!r} is not a relative name that stays below the upload")
    return [uploads.upload_prefix(caller.team_id, upload_id) + name for name in names]
