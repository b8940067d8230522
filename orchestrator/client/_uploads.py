"""Items on their way to the store: objects go while sources are read, the manifest that names them goes last."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import IO

import httpx

from orchestrator.client._bundles import OutgoingObject, Packer
from orchestrator.client._errors import BadSource, NothingToSubmit, TransferFailed
from orchestrator.client._http import Api, new_idempotency_key
from orchestrator.client._sources import SourceItem
from orchestrator.client._steps import Steps, work
from orchestrator.client._transfers import Crew, Transfers
from orchestrator.schemas import UploadUrlsCreate, UploadView, UrlsView

MANIFEST = "manifest.jsonl"
GROUP_OBJECTS = 16  # whose links are asked for at once
GROUP_BYTES = 8 * 2**20  # of them in memory; a larger one goes alone


class Uploads:
    """Sends items. Of what is read, at most a group of objects and one for each thread are in memory."""

    def __init__(self, api: Api, transfers: Transfers) -> None:
        self._api, self._transfers = api, transfers

    def send(
        self, items: Iterable[SourceItem], idempotency_key: str | None, *, with_digests: bool = False
    ) -> Steps[str]:
        """The id of the upload that holds the items' images and manifest.

        With a key the upload is that of the last time. Where its manifest is there, all is, and nothing is sent again;
        where that is missing, objects that are there already are not sent again. `with_digests` is as of `Packer`.

        Raises:
            NothingToSubmit: there are no items.
            BadSource: the key was used for other items.
            TransferFailed: the store does not take them.
        """
        key = f"{idempotency_key}/upload" if idempotency_key else new_idempotency_key()
        with tempfile.TemporaryFile("w+b") as manifest:
            groups = _grouped(pack(items, manifest, with_digests=with_digests))
            first = yield from work(partial(next, groups, None))
            if first is None and manifest.tell() == 0:
                raise NothingToSubmit("there is nothing to submit: no image or prompt was found")
            answer = yield from self._api.send("POST", "/v1/uploads", idempotency_key=key)
            upload = UploadView.model_validate_json(answer.content).id
            sent = (yield from self._manifest_sha256(upload)) if idempotency_key else None
            everything = chain([first] if first is not None else [], groups)
            if sent is None:
                yield from self._put_all(upload, everything, resume=answer.status_code == httpx.codes.OK)
                (url,) = yield from self.urls(upload, [MANIFEST])
                yield from work(partial(self._transfers.put_file, url, manifest))
            elif sent != (yield from work(partial(_sha256_of_all, everything, manifest))):
                raise BadSource(
                    f"idempotency_key {idempotency_key!r} was used for other files or prompts; take another"
                )
            return upload

    def urls(self, upload: str, names: list[str]) -> Steps[list[str]]:
        """Where to send objects of an upload."""
        return self._links(f"/v1/uploads/{upload}/urls", names)

    def downloads(self, upload: str, names: list[str]) -> Steps[list[str]]:
        """Where to read back objects of an upload."""
        return self._links(f"/v1/uploads/{upload}/downloads", names)

    def _manifest_sha256(self, upload: str) -> Steps[str | None]:
        """Of the manifest that the upload holds; None where it holds none."""
        (url,) = yield from self.downloads(upload, [MANIFEST])
        try:
            return (yield from work(partial(self._transfers.get_into, url)))
        except TransferFailed as error:
            if error.status not in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):  # some stores hide what is missing
                raise
            return None

    def _put_all(self, upload: str, groups: Iterator[list[OutgoingObject]], *, resume: bool) -> Steps[None]:
        """Read, ask for links and send, all at once; in an upload that was begun before, only what it does not hold."""
        with Crew(self._transfers.threads) as crew:
            while group := (yield from work(partial(next, groups, None))):
                names = [each.name for each in group]
                urls = yield from self.urls(upload, names)
                held: list[str | None] = [None] * len(group)
                if resume:
                    held = [*(yield from self.downloads(upload, names))]
                for one in zip(group, urls, held, strict=True):
                    yield from work(partial(crew.begin, partial(self._put, *one)))
            yield from work(crew.finish)

    def _put(self, outgoing: OutgoingObject, url: str, held_at: str | None) -> None:
        if outgoing.is_missing:  # a file that is away becomes that item's failure, `image_missing`
            return
        if held_at is None or not self._transfers.holds(held_at, outgoing.read):
            self._transfers.put_pieces(url, outgoing.read, outgoing.length())

    def _links(self, path: str, names: list[str]) -> Steps[list[str]]:
        body = UploadUrlsCreate(names=names).model_dump()
        return (yield from self._api.call(UrlsView, "POST", path, body=body, repeatable=True)).urls


def pack(items: Iterable[SourceItem], manifest: IO[bytes], *, with_digests: bool = False) -> Iterator[OutgoingObject]:
    """Write each item's line, and hand out the objects that its images go into; a URL stays one."""
    packer = Packer(with_digests=with_digests)
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


def _sha256_of_all(objects: Iterable[object], manifest: IO[bytes]) -> str:
    """Of the manifest, which is written while the objects are made."""
    for _ in objects:
        pass
    manifest.seek(0)
    digest = hashlib.sha256()
    while data := manifest.read(2**20):
        digest.update(data)
    return digest.hexdigest()
