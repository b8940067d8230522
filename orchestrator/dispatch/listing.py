"""What lies in folders that an operator opened: images below a prefix, images in tars; a manifest line each."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.artifacts.base import ObjectStore
from orchestrator.domain.names import IMAGE_SUFFIXES
from orchestrator.domain.places import SCHEME, InputPlaces
from orchestrator.domain.samples import read_samples

READ_AHEAD_BYTES = 256 * 2**10  # of a tar at a time: hundreds of small files, or the header of a large one


class Listing:
    """Reads names, and of tars the headers; images are left to workers.

    An id is the path below the folder that all URLs have in common; a tar counts as a folder.
    """

    def __init__(self, store: ObjectStore, places: InputPlaces, team_id: str, *, with_fields: bool) -> None:
        self._store, self._places, self._team_id, self._with_fields = store, places, team_id, with_fields

    def lines(self, urls: Sequence[str]) -> Iterator[dict[str, Any]]:
        """In order of the URLs, and of names below each. Raises PlaceRefused, StoreError."""
        found = [self._places.locate(url, self._team_id) for url in urls]
        common = _common_folder([f"{bucket}/{key}" for bucket, key in found])
        for bucket, key in found:
            lines = self._tar(bucket, key) if key.endswith(".tar") else self._folder(bucket, key)
            for line in lines:
                yield line | {"id": line["id"].removeprefix(common)}

    def _folder(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        for stored in self._store.in_bucket(bucket).list(prefix):
            if stored.key.startswith(prefix) and stored.key.lower().endswith(IMAGE_SUFFIXES):
                yield {"id": f"{bucket}/{stored.key}", "image": f"{SCHEME}{bucket}/{stored.key}"}

    def _tar(self, bucket: str, key: str) -> Iterator[dict[str, Any]]:
        store, where = self._store.in_bucket(bucket), f"{bucket}/{key}"
        tar = next((stored for stored in store.list(key) if stored.key == key), None)
        if tar is None:
            yield {"id": where, "failure": f"there is no object {SCHEME}{where}"}
            return
        for image in read_samples(_ReadAhead(store, key).read_at, tar.num_bytes, with_fields=self._with_fields):
            item_id = f"{where}/{image.name}" if image.name else f"{where} from byte {image.offset} on"
            if image.trouble:
                yield {"id": item_id, "failure": f"{SCHEME}{where}: {image.trouble}"}
            else:
                part = {"object": SCHEME + where, "offset": image.offset, "num_bytes": image.num_bytes}
                yield {"id": item_id, "image": part, "fields": image.fields}


class _ReadAhead:
    """Small reads of an object, made of large ones."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._start, self._data = 0, b""

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        if not self._start <= offset <= offset + num_bytes <= self._start + len(self._data):
            self._start = offset
            self._data = self._store.get_range(self._key, offset, max(num_bytes, READ_AHEAD_BYTES))
        return self._data[offset - self._start :][:num_bytes]


def _common_folder(paths: Sequence[str]) -> str:
    """What all of them lie in, ending in `/`: `b/a/` of `b/a/x/` and `b/a/y-`; a tar alone is a folder itself."""
    folders = [f"{path}/" if path.endswith(".tar") else path.rpartition("/")[0] + "/" for path in paths]
    return (
        folders[0] if len(set(folders)) == 1 else posixpath.commonpath(folders) + "/" if _same_bucket(folders) else ""
    )


def _same_bucket(folders: Sequence[str]) -> bool:
    return len({folder.partition("/")[0] for folder in folders}) == 1
