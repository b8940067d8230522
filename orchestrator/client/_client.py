"""The client: submit, find, and administer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx

from orchestrator.client._errors import ClientError, InvalidOption, TransferFailed
from orchestrator.client._http import Http, new_idempotency_key
from orchestrator.client._job import Job
from orchestrator.client._options import build_request, check_options
from orchestrator.client._sources import (
    Columns,
    bucket_urls,
    name_sources,
    read_image_sources,
    read_prompt_sources,
    sweep_over,
)
from orchestrator.client._transfers import Transfers
from orchestrator.client._uploads import MANIFEST, Uploads
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind, JobState
from orchestrator.domain.keys import PREFIX, parse_key
from orchestrator.domain.templates import words_of
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
    TeamChange,
    TeamCreate,
    TeamsView,
    TeamView,
    UploadView,
    WhoAmI,
    WorkersView,
    WorkerView,
)


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
        self._uploads = Uploads(self._http, self._transfers)

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
        sources: Any,
        *,
        image_column: str | None = None,
        id_column: str | None = None,
        prompt_column: str | None = None,
        model: str | None = None,
        name: str | None = None,
        priority: int = 0,
        window: str | None = None,
        deadline_at: datetime | None = None,
        shard_items: int | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Caption images.

        Args:
            sources: files, folders, globs, `.jsonl`, `.csv`, `.parquet`, WebDataset `.tar` (braces too), a pandas
                DataFrame, a dataset of `datasets`, pictures of Pillow; one, or a list or a stream of them. Or `s3://`
                URLs of folders and tars that the server's operator opened, which are read where they lie.
            image_column, id_column, prompt_column: of tables; of tars the last two name entries of `key.json`.
            window, deadline_at: when it may run, `"22:00-06:00 Europe/Berlin"`, and when it ends, finished or not.
            idempotency_key: with the same arguments the same job, and its files are not sent again.
            options: those of `CaptionOptions`: prompt, max_tokens, temperature, top_p, top_k, seed. A prompt may name
                fields of each item: `"A photo tagged {tags}. Describe it."`.
        Images go straight to the store while the sources are read. Raises BadSource, InvalidOption.
        """
        checked = cast(CaptionOptions, check_options(JobKind.caption, options))  # told before anything is sent
        columns = Columns(image_column, id_column, prompt_column, words_of(checked.prompt))
        urls = bucket_urls(sources)
        if urls and columns.is_told:
            raise InvalidOption("columns are for tables; of s3:// nothing has any")
        request = build_request(
            CaptionJobCreate,
            kind="caption",
            name=name or f"caption {name_sources(sources)}"[:200],
            model=self._known_model(model),
            priority=priority,
            window=window,
            deadline_at=deadline_at,
            shard_items=shard_items,
            options=checked,
            input=JobInput(s3=urls) if urls else JobInput(upload="to be made", manifest=MANIFEST),
        )
        if not urls:
            request.input.upload = self._uploads.send(read_image_sources(sources, columns), idempotency_key)
        return self._create(request, idempotency_key)

    def generate(
        self,
        prompts: str | Iterable[str] = (),
        *,
        file: Any = None,
        template: str | None = None,
        id_column: str | None = None,
        prompt_column: str | None = None,
        sweep: Mapping[str, Sequence[Any]] | None = None,
        model: str | None = None,
        name: str | None = None,
        priority: int = 0,
        window: str | None = None,
        deadline_at: datetime | None = None,
        shard_items: int | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Generate images from prompts.

        Args:
            file: with a prompt a line, or of `.jsonl` an object a line, or of `.csv` and `.parquet` a row each; a
                DataFrame or a dataset too.
            template: the prompt of each row, with its cells in it: `"a {color} {animal}"`.
            id_column, prompt_column: of tables.
            sweep: options with several values: `{"guidance": [3, 5], "seed": [1, 2]}` draws each prompt four times.
            window, deadline_at, idempotency_key: as in `caption`.
            options: those of `GenerateOptions`: images, guidance, temperature, top_p, top_k, steps, solver, seed.
        Raises BadSource, InvalidOption.
        """
        checked = cast(GenerateOptions, check_options(JobKind.generate, options))
        given_twice = sorted(set(options) & set(sweep or {}))
        if given_twice:
            raise InvalidOption(f"{given_twice[0]} is swept and given for the whole job too; leave one out")
        several = [prompts] if isinstance(prompts, str) else prompts
        items = read_prompt_sources(several, file, Columns(None, id_column, prompt_column), template)
        if sweep:
            items = sweep_over(items, sweep, checked)
        request = build_request(
            GenerateJobCreate,
            kind="generate",
            name=name or (f"generate {Path(file).name}" if isinstance(file, str | Path) else "generate"),
            model=self._known_model(model),
            priority=priority,
            window=window,
            deadline_at=deadline_at,
            shard_items=shard_items,
            options=checked,
            input=JobInput(upload="to be made", manifest=MANIFEST),
        )
        request.input.upload = self._uploads.send(items, idempotency_key)
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
        url = httpx.URL(self._uploads.urls(upload, ["doctor.txt"])[0])
        address = f"{url.scheme}://{url.netloc.decode()}"
        try:
            self._transfers.put(str(url), sent)
        except TransferFailed as error:
            raise TransferFailed(f"{address}: {error}", error.status) from error
        if self._transfers.get(self._uploads.downloads(upload, ["doctor.txt"])[0]) != sent:
            raise ClientError("the store gave back other bytes than were sent")
        return address

    def create_team(self, name: str) -> TeamView:
        return self._http.call(TeamView, "POST", "/v1/teams", body=TeamCreate(name=name).model_dump())

    def teams(self) -> list[TeamView]:
        return self._http.call(TeamsView, "GET", "/v1/teams").teams

    def set_team_weight(self, team_id: str, weight: int) -> TeamView:
        """How many turns a team gets for each one of a team of weight 1; needs the scope `admin`."""
        body = TeamChange(weight=weight).model_dump()
        return self._http.call(TeamView, "PATCH", f"/v1/teams/{team_id}", body=body)

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
