"""The client: submit, find, and administer."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from orchestrator.client._bundles import OutgoingObject, read_objects
from orchestrator.client._errors import BadSource, ClientError, TransferFailed
from orchestrator.client._http import Http, new_idempotency_key
from orchestrator.client._job import Job
from orchestrator.client._manifest import write_manifest
from orchestrator.client._options import build_request, check_options
from orchestrator.client._sources import SourceItem, read_image_sources, read_prompt_sources
from orchestrator.client._transfers import Transfers, in_groups
from orchestrator.domain.jobs import JobKind, JobState
from orchestrator.domain.keys import PREFIX, parse_key
from orchestrator.schemas import (
    AuditPage,
    AuditView,
    CaptionJobCreate,
    DiagnosisView,
    FindingView,
    GenerateJobCreate,
    JobInput,
    JobPage,
    JobView,
    KeyCreate,
    KeyRotate,
    KeysView,
    KeyView,
    ModelsView,
    ModelView,
    NewKeyView,
    Readiness,
    TeamCreate,
    TeamsView,
    TeamView,
    UploadUrlsCreate,
    UploadView,
    UrlsView,
    WhoAmI,
    WorkersView,
    WorkerView,
)

MANIFEST = "manifest.jsonl"
OBJECTS_AT_ONCE = 4  # sent one after the other by each thread


class Client:
    """A server and a key.

    Args:
        url: the API's address; `JANUS_URL` where it is left out.
        key: the team's key; `JANUS_API_KEY` where it is left out.
        transport: an httpx transport, for proxies and tests.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_seconds: float = 60,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url, key = url or os.environ.get("JANUS_URL"), key or os.environ.get("JANUS_API_KEY")
        if not url:
            raise ClientError("no server: set JANUS_URL (such as http://127.0.0.1:8080), or pass url=")
        if not key:
            raise ClientError("no key: set JANUS_API_KEY, or pass key=; an admin makes one with `janus keys create`")
        if key.startswith(PREFIX) and parse_key(key) is None:
            raise ClientError("the key is mistyped or cut: its last six characters do not fit the rest")
        self.url = url
        self._http = Http(url, key, timeout_seconds=timeout_seconds, max_retries=max_retries, transport=transport)
        self._transfers = Transfers(max_retries=max_retries + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._transfers.close()

    # --- Jobs -----------------------------------------------------------------------------------------------------

    def caption(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        model: str | None = None,
        name: str | None = None,
        priority: int = 0,
        shard_items: int | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Caption images: files, folders, globs and `.jsonl` manifests.

        Images are uploaded straight to the store. `options` are those of `CaptionOptions`: prompt, max_tokens,
        temperature, top_p, top_k, seed. The same `idempotency_key` with the same arguments is the same job, and
        its files are not sent again. Raises BadSource where there is nothing to caption, InvalidOption.
        """
        several: list[str | Path] = [sources] if isinstance(sources, str | Path) else list(sources)
        checked = check_options(JobKind.caption, options)  # told before a million images are uploaded
        request = build_request(
            CaptionJobCreate,
            kind="caption",
            name=name or f"caption {' '.join(str(source) for source in several)}"[:200],
            model=self._known_model(model),
            priority=priority,
            shard_items=shard_items,
            options=checked,
            input=JobInput(upload="to be made", manifest=MANIFEST),
        )
        request.input.upload = self._upload(read_image_sources(several), idempotency_key)
        return self._create(request, idempotency_key)

    def generate(
        self,
        prompts: str | Iterable[str] = (),
        *,
        file: str | Path | None = None,
        model: str | None = None,
        name: str | None = None,
        priority: int = 0,
        shard_items: int | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Generate images from prompts, or from a file with one a line (`.jsonl`: one object a line).

        `options` are those of `GenerateOptions`: images, guidance, temperature, top_p, top_k, steps, solver,
        seed.
        `idempotency_key` is as in `caption`.
        """
        several = [prompts] if isinstance(prompts, str) else prompts
        checked = check_options(JobKind.generate, options)
        request = build_request(
            GenerateJobCreate,
            kind="generate",
            name=name or (f"generate {Path(file).name}" if file else "generate"),
            model=self._known_model(model),
            priority=priority,
            shard_items=shard_items,
            options=checked,
            input=JobInput(upload="to be made", manifest=MANIFEST),
        )
        items = (SourceItem(line) for line in read_prompt_sources(several, file))
        request.input.upload = self._upload(items, idempotency_key)
        return self._create(request, idempotency_key)

    def attach(self, job_id: str) -> Job:
        """A job by its id, from anywhere, at any time."""
        return self._job(self._http.call(JobView, "GET", f"/v1/jobs/{job_id}"))

    def jobs(self, *, state: JobState | str | None = None) -> Iterator[Job]:
        """The team's jobs, newest first."""
        cursor: str | None = None
        while True:
            page = self._http.call(JobPage, "GET", "/v1/jobs", params={"state": state, "cursor": cursor})
            yield from (self._job(view) for view in page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _create(self, request: CaptionJobCreate | GenerateJobCreate, idempotency_key: str | None) -> Job:
        body = request.model_dump(mode="json")
        key = idempotency_key or new_idempotency_key()
        return self._job(self._http.call(JobView, "POST", "/v1/jobs", body=body, idempotency_key=key))

    def _job(self, view: JobView) -> Job:
        return Job(self._http, self._transfers, view)

    # --- Uploads --------------------------------------------------------------------------------------------------

    def _upload(self, items: Iterable[SourceItem], idempotency_key: str | None) -> str:
        """Send the items' files and a manifest that names them; the upload's id. Nothing is held in memory.

        With a key the upload is that of the last time, and what it holds already is not sent again.
        """
        key = f"{idempotency_key}/upload" if idempotency_key else new_idempotency_key()
        with tempfile.TemporaryFile("w+b") as manifest, tempfile.TemporaryFile("w+b") as objects:
            write_manifest(items, manifest, objects)
            if manifest.tell() == 0:
                raise BadSource("there is nothing to submit: no image or prompt was found")
            upload = self._http.call(UploadView, "POST", "/v1/uploads", idempotency_key=key).id
            if idempotency_key and self._is_sent(upload, manifest, idempotency_key):
                return upload
            groups = in_groups(read_objects(objects), OBJECTS_AT_ONCE)
            self._transfers.map(lambda group: self._put_objects(upload, group), groups)
            self._transfers.put_file(self._upload_urls(upload, [MANIFEST])[0], manifest)
        return upload

    def _is_sent(self, upload: str, manifest: IO[bytes], idempotency_key: str) -> bool:
        """Whether the upload holds this manifest, which is sent last. Raises BadSource where it holds another one."""
        manifest.seek(0)
        digest = hashlib.sha256()
        for line in manifest:
            digest.update(line)
        try:
            sent = self._transfers.get_into(self._upload_downloads(upload, [MANIFEST])[0])
        except TransferFailed as error:
            if error.status not in (httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):  # some stores hide what is missing
                raise
            return False
        if sent != digest.hexdigest():
            raise BadSource(f"idempotency_key {idempotency_key!r} was used for other files or prompts; take another")
        return True

    def _put_objects(self, upload: str, group: list[OutgoingObject]) -> None:
        urls = self._upload_urls(upload, [each.name for each in group])
        for each, url in zip(group, urls, strict=True):
            data = each.read()
            if data is not None:  # a file that is missing becomes that item's failure, `image_missing`
                self._transfers.put(url, data)

    def _upload_urls(self, upload: str, names: list[str]) -> list[str]:
        """Where to send objects of an upload."""
        return self._urls(f"/v1/uploads/{upload}/urls", names)

    def _upload_downloads(self, upload: str, names: list[str]) -> list[str]:
        """Where to read back objects of an upload."""
        return self._urls(f"/v1/uploads/{upload}/downloads", names)

    def _urls(self, path: str, names: list[str]) -> list[str]:
        body = UploadUrlsCreate(names=names).model_dump()
        return self._http.call(UrlsView, "POST", path, body=body, repeatable=True).urls

    # --- Models, workers, teams, keys -----------------------------------------------------------------------------

    def models(self) -> list[ModelView]:
        return self._http.call(ModelsView, "GET", "/v1/models").models

    def _known_model(self, name: str | None) -> str:
        """The model asked for, or the one that is served. Raises ClientError where there is none, or a choice."""
        models = self.models()
        if name is not None:
            if name not in {model.name for model in models}:
                known = ", ".join(model.name for model in models) or "none yet"
                raise ClientError(f"no worker has served {name!r}; known: {known}. `janus worker --model {name}` does.")
            return name
        served = [model.name for model in models if model.served]
        if len(served) == 1:
            return served[0]
        if not served:
            raise ClientError("no worker serves a model now; start one with `janus worker --model NAME`")
        raise ClientError(f"several models are served; say which: {', '.join(served)}")

    def workers(self) -> list[WorkerView]:
        return self._http.call(WorkersView, "GET", "/v1/workers").workers

    def whoami(self) -> WhoAmI:
        return self._http.call(WhoAmI, "GET", "/v1/whoami")

    def readiness(self) -> Readiness:
        return self._http.call(Readiness, "GET", "/readyz")

    def diagnosis(self) -> list[FindingView]:
        """What the servers find wrong with themselves; needs the scope `admin`."""
        return self._http.call(DiagnosisView, "GET", "/v1/diagnosis").findings

    def check_transfer(self) -> str:
        """Send a few bytes to the store and read them back, by presigned URLs; the store's address.

        Raises ClientError, of it TransferFailed for what the store did.
        """
        upload = self._http.call(UploadView, "POST", "/v1/uploads", idempotency_key=new_idempotency_key()).id
        sent = b"janus doctor"
        url = httpx.URL(self._upload_urls(upload, ["doctor.txt"])[0])
        address = f"{url.scheme}://{url.netloc.decode()}"
        try:
            self._transfers.put(str(url), sent)
        except TransferFailed as error:
            raise TransferFailed(f"{address}: {error}", error.status) from error
        if self._transfers.get(self._upload_downloads(upload, ["doctor.txt"])[0]) != sent:
            raise ClientError("the store gave back other bytes than were sent")
        return address

    def create_team(self, name: str) -> TeamView:
        return self._http.call(TeamView, "POST", "/v1/teams", body=TeamCreate(name=name).model_dump())

    def teams(self) -> list[TeamView]:
        return self._http.call(TeamsView, "GET", "/v1/teams").teams

    def create_key(self, request: KeyCreate) -> NewKeyView:
        return self._http.call(NewKeyView, "POST", "/v1/keys", body=request.model_dump(mode="json"))

    def keys(self, team: str | None = None) -> list[KeyView]:
        return self._http.call(KeysView, "GET", "/v1/keys", params={"team": team}).keys

    def rotate_key(self, key_id: str, *, overlap_days: int = 7) -> NewKeyView:
        """A new key in a live one's place; the old one works for so many days more."""
        body = KeyRotate(overlap_days=overlap_days).model_dump()
        return self._http.call(NewKeyView, "POST", f"/v1/keys/{key_id}/rotate", body=body)

    def audit(self, team: str | None = None) -> Iterator[AuditView]:
        """Who changed what, the newest first."""
        before_id: int | None = None
        while True:
            page = self._http.call(AuditPage, "GET", "/v1/audit", params={"team": team, "before_id": before_id})
            yield from page.audit
            before_id = page.next_id
            if before_id is None:
                return

    def revoke_key(self, key_id: str) -> None:
        self._http.send("DELETE", f"/v1/keys/{key_id}")
