"""Items on their way to the store: objects go while sources are read, the manifest that names them goes last."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO

import httpx

from orchestrator.client._bundles import OutgoingObject, Packer
from orchestrator.client._errors import BadSource, TransferFailed
from orchestrator.client._http import Http, new_idempotency_key
from orchestrator.client._sources import SourceItem
from orchestrator.client._transfers import Transfers
from orchestrator.schemas import UploadUrlsCreate, UploadView, UrlsView

MANIFEST = "manifest.jsonl"
GROUP_OBJECTS = 4  # sent one after the other by a thread, which asks for their links at once
GROUP_BYTES = 8 * 2**20  # of them in memory; a larger one goes alone


class Uploads:
    """Sends items. Of what is read, at most some groups of objects for each thread are in memory."""

    def __init__(self, http: Http, transfers: Transfers) -> None:
        self._http, self._transfers = http, transfers

    def send(self, items: Iterable[SourceItem], idempotency_key: str | None) -> str:
        """The id of the upload that holds the items' images and manifest. Raises BadSource, TransferFailed.

        With a key the upload is that of the last time. Where its manifest is there, all is, and nothing is sent again;
        BadSource where that is of other items.
        """
        key = f"{idempotency_key}/upload" if idempotency_key else new_idempotency_key()
        with tempfile.TemporaryFile("w+b") as manifest:
            groups = _grouped(pack(items, manifest))
            first = next(groups, None)
            if first is None and manifest.tell() == 0:
                raise BadSource("there is nothing to submit: no image or prompt was found")
            upload = self._http.call(UploadView, "POST", "/v1/uploads", idempotency_key=key).id
            sent = self._manifest_sha256(upload) if idempotency_key else None
            everything = chain([first] if first is not None else [], groups)
            if sent is None:
                self._transfers.map(lambda group: self._put(upload, group), everything)
                self._transfers.put_file(self.urls(upload, [MANIFEST])[0], manifest)
                return upload
            for _ in everything:  # so that the manifest is written
                pass
            if sent != _sha256(manifest):
                raise BadSource(
                    f"idempotency_key {idempotency_key!r} was used for other files or prompts; take another"
                )
            return upload

    def urls(self, upload: str, names: list[str]) -> list[str]:
        """Where to send objects of an upload."""
        return self._links(f"/v1/uploads/{upload}/urls", names)

    def downloads(self, upload: str, names: list[str]) -> list[str]:
        """Where to read back objects of an upload."""
        return self._links(f"/v1/uploads/{upload}/downloads", names)

    def _manifest_sha256(self, upload: str) -> str | None:
        """Of the manifest that the upload holds; None where it holds none."""
        try:
            return self._transfers.get_into(self.downloads(upload, [MANIFEST])[0])
        except TransferFailed as error:
            if error.status not in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):  # some stores hide what is missing
                raise
            return None

    def _put(self, upload: str, group: list[OutgoingObject]) -> None:
        urls = self.urls(upload, [each.name for each in group])
        for each, url in zip(group, urls, strict=True):
            if not each.is_missing:  # a file that is away becomes that item's failure, `image_missing`
                self._transfers.put_pieces(url, each.read, each.length())

    def _links(self, path: str, names: list[str]) -> list[str]:
        body = UploadUrlsCreate(names=names).model_dump()
        return self._http.call(UrlsView, "POST", path, body=body, repeatable=True).urls


def pack(items: Iterable[SourceItem], manifest: IO[bytes]) -> Iterator[OutgoingObject]:
    """Write each item's line, and hand out the objects that its images go into; a URL stays one."""
    packer = Packer()
    for item in items:
        line = item.line
        if item.files and isinstance(line, dict):
            places = [file if isinstance(file, str) else packer.place(file) for file in item.files]
            line = line | {"image": places[0] if len(places) == 1 else places}
        text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
        manifest.write(text.encode("utf-8", "replace") + b"\n")
        yield from packer.take()
    packer.close()
    yield from packer.take()


def _grouped(objects: Iterable[OutgoingObject]) -> Iterator[list[OutgoingObject]]:
    group: list[OutgoingObject] = []
    for each in objects:
        group.append(each)
        if len(group) >= GROUP_OBJECTS or sum(one.bytes_held for one in group) >= GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while data := file.read(2**20):
        digest.update(data)
    return digest.hexdigest()
