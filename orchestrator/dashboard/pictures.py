"""Where a browser finds a picture: in the store by a signed link, or here where it is a part of a larger object.

Nothing is decoded: the bytes go out as they came in, as a picture or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from itsdangerous import BadSignature

from orchestrator.api.dependencies import Services
from orchestrator.artifacts.base import ObjectStore
from orchestrator.dashboard.items import Seen
from orchestrator.dashboard.sessions import signer
from orchestrator.domain.errors import InvalidRequest, NotFound
from orchestrator.domain.image_refs import ImageRef
from orchestrator.domain.shards import image_file, image_name
from orchestrator.domain.urls import is_url

MAX_PART_BYTES = 8 * 2**20
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


@dataclass(frozen=True)
class Picture:
    """One picture of an item. Without a `url` it cannot be shown here, and `note` says why."""

    url: str | None
    note: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None


def pictures_of(seen: Seen, job_id: str, team_id: str, services: Services) -> list[Picture]:
    """Those that were drawn, or those that were handed in."""
    if seen.line is not None and "images" in seen.line:
        drawn = enumerate(seen.line["images"])
        return [_drawn(image, job_id, seen.index, k, services) for k, image in drawn]
    return [_handed_in(ref, team_id, services) for ref in seen.item.images] if seen.item else []


def _drawn(image: dict[str, Any], job_id: str, index: int, k: int, services: Services) -> Picture:
    key = f"jobs/{job_id}/{image_name(image_file(index, k), str(image['sha256']))}"
    return Picture(_link(key, services), "", image.get("width"), image.get("height"), image.get("seed"))


def _handed_in(ref: ImageRef, team_id: str, services: Services) -> Picture:
    if not _is_open(ref.bucket, ref.key, team_id, services):
        return Picture(None, "in a folder that is not open to this team any more")
    if is_url(ref.key):
        return Picture(None, ref.key)  # of another host: a page of ours asks nothing there
    if ref.num_bytes is None:
        return Picture(_link(ref.key, services, ref.bucket))
    if ref.num_bytes > MAX_PART_BYTES:
        return Picture(None, "too large to be shown here")
    token = signer(services.settings, "picture").dumps([team_id, ref.bucket, ref.key, ref.offset, ref.num_bytes])
    return Picture(f"/pictures/{token}")


def _is_open(bucket: str, key: str, team_id: str, services: Services) -> bool:
    """Looked at again, as workers do: an operator may have closed the folder since the job was made."""
    return not bucket or services.places.covers(bucket, key, team_id)


def _link(key: str, services: Services, bucket: str = "") -> str:
    return _store(services, bucket).presign_get(key, expires_seconds=services.settings.presigned_url_seconds)


def _store(services: Services, bucket: str) -> ObjectStore:
    """Ours, or the bucket that an operator opened and the item names: the same key is another object there."""
    return services.store.in_bucket(bucket) if bucket else services.store


def read_part(token: str, team_id: str, services: Services) -> tuple[bytes, str]:
    """A part of an object and its media type, by the path that `pictures_of` made for this team.

    Raises:
        NotFound: the path is not ours, too old, or another team's.
        InvalidRequest: the bytes are no picture.
    """
    try:
        max_age = services.settings.presigned_url_seconds
        owner, bucket, key, offset, num_bytes = signer(services.settings, "picture").loads(token, max_age=max_age)
    except (BadSignature, ValueError, TypeError):
        raise NotFound("There is no such picture. Load the page again.") from None
    if owner != team_id or not _is_open(bucket, key, team_id, services):
        raise NotFound("There is no such picture. Load the page again.")
    data = _store(services, bucket).get_range(key, offset, num_bytes)
    return data, _media_type(data)


def _media_type(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    raise InvalidRequest("These bytes are no picture that this server knows.")
