"""Which bytes are an image: as an item's line names them, and as a shard carries them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.domain.errors import JanusError
from orchestrator.domain.names import is_safe_name, without_surrogates
from orchestrator.domain.places import SCHEME, InputPlaces, PlaceRefused
from orchestrator.domain.urls import MAX_URL_LENGTH, is_url

MAX_IMAGES_PER_PROMPT = 16
MAX_OBJECT_BYTES = 5 * 2**40  # of S3
BUNDLE_BYTES = 4 * 2**20  # of an object with many small images, which is what a worker reads at a time
_SHAPES = frozenset(
    frozenset({"object", *part, *digest}) for part in ((), ("offset", "num_bytes")) for digest in ((), ("sha256",))
)
_SHA256 = re.compile("[0-9a-f]{64}")
_is_safe_name = lru_cache(maxsize=64)(is_safe_name)  # as many parts of one object come in a row


class BadItem(JanusError):
    """The line's own fault: the failure's code and its message."""

    def __init__(self, message: str, code: str = "item_invalid") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class ImageRef:
    """Where an image's bytes are: an object, a part of one that holds many, or a URL where the server fetches them."""

    key: str
    offset: int = 0
    num_bytes: int | None = None  # None: the whole object
    bucket: str = ""  # one of JANUS_INPUT_BUCKETS; empty: the product's own
    sha256: str | None = None  # of the image's bytes, as whoever sent them says

    def as_json(self) -> str | list[str | int | None]:
        if self.sha256:
            return [self.key, self.offset, self.num_bytes, self.bucket, self.sha256]
        if self.bucket:
            return [self.key, self.offset, self.num_bytes, self.bucket]
        return self.key if self.num_bytes is None else [self.key, self.offset, self.num_bytes]

    @classmethod
    def from_json(cls, value: str | list[Any]) -> ImageRef:
        return cls(value) if isinstance(value, str) else cls(*value)


class ImageNames:
    """What a line of one job may name.

    Args:
        prefix: of objects, that names are relative to, ending in `/`; empty where the job has no upload.
        allow_urls: whether an image may be a URL; where it leads is looked at by who fetches it.
        places: where `s3://` may lead to for the team; None for nowhere.
    """

    def __init__(
        self, prefix: str, *, allow_urls: bool = False, places: InputPlaces | None = None, team_id: str = ""
    ) -> None:
        self._prefix, self._allow_urls, self._places, self._team_id = prefix, allow_urls, places, team_id

    def refs(self, value: object) -> tuple[ImageRef, ...]:
        """The images of a line's `image`. Raises BadItem."""
        values: list[Any] = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, (str, dict)) for each in values):
            raise BadItem("`image` must be the name of an uploaded image, a part of an object, or a list of them")
        if len(values) > MAX_IMAGES_PER_PROMPT:
            raise BadItem(f"`image` lists {len(values)} images; at most {MAX_IMAGES_PER_PROMPT} fit one prompt")
        return tuple(self._ref(each) if isinstance(each, str) else self._part(each) for each in values)

    def _ref(self, name: str) -> ImageRef:
        if is_url(name) and not name.startswith(SCHEME):
            return ImageRef(self._allowed_url(name))
        bucket, key = self._object(name)
        return ImageRef(key, bucket=bucket)

    def _part(self, value: dict[str, Any]) -> ImageRef:
        name, sha256 = value.get("object"), value.get("sha256")
        if frozenset(value) not in _SHAPES or not isinstance(name, str):
            raise BadItem(
                "an object has the field object, a part of one offset and num_bytes too; no others but sha256"
            )
        if "sha256" in value and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
            raise BadItem("`image.sha256` must be the SHA-256 of the image's bytes, 64 digits of 0-9 and a-f")
        bucket, key = self._object(name)
        if "offset" not in value:
            return ImageRef(key, bucket=bucket, sha256=sha256)
        return ImageRef(
            key,
            whole_number("image.offset", value["offset"], 0, MAX_OBJECT_BYTES),
            whole_number("image.num_bytes", value["num_bytes"], 1, MAX_OBJECT_BYTES),
            bucket,
            sha256,
        )

    def _object(self, name: str) -> tuple[str, str]:
        """Bucket and key; the product's own bucket is empty."""
        if name.startswith(SCHEME):
            return self._opened(name)
        if not self._prefix:
            raise BadItem("`image` names an upload, but the job has none; create one with POST /v1/uploads")
        if not _is_safe_name(name):
            raise BadItem(f"{name[:200]!r} is not a relative name below the upload")
        return "", self._prefix + name

    def _opened(self, url: str) -> tuple[str, str]:
        if self._places is None:
            raise BadItem("`image` lies in a bucket, and this server reads none (JANUS_INPUT_BUCKETS)", "url_refused")
        try:
            bucket, key = self._places.locate(url, self._team_id)
        except PlaceRefused as error:
            raise BadItem(str(error), "url_refused") from None
        if not is_safe_name(key):
            raise BadItem(f"{url[:200]!r} names a folder, not an image", "url_refused")
        return bucket, key

    def _allowed_url(self, url: str) -> str:
        if not self._allow_urls:
            raise BadItem(
                "`image` is a URL, and this server fetches none (JANUS_ALLOW_IMAGE_URLS); upload the image",
                "url_refused",
            )
        if len(url) > MAX_URL_LENGTH:
            raise BadItem(f"the URL has {len(url)} characters; at most {MAX_URL_LENGTH} are accepted", "url_refused")
        return without_surrogates(url)


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """Raises BadItem."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadItem(f"`{name}` must be a whole number from {least} to {most}")
    return value
