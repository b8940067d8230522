"""Making a job: the manifest and the files go to the store first, then the request that names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, cast

from orchestrator.client._errors import ClientError, InvalidOption, NothingToSubmit
from orchestrator.client._faces import Call
from orchestrator.client._http import Api, new_idempotency_key
from orchestrator.client._job import J
from orchestrator.client._options import build_request, check_options
from orchestrator.client._outputs import Existing, Guard, Output
from orchestrator.client._sources import (
    Columns,
    SourceItem,
    bucket_urls,
    name_sources,
    read_image_sources,
    read_prompt_sources,
    sweep_over,
)
from orchestrator.client._steps import Steps, work
from orchestrator.client._transfers import Transfers
from orchestrator.client._uploads import MANIFEST, Uploads
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind
from orchestrator.domain.templates import words_of
from orchestrator.schemas import (
    CaptionEstimate,
    CaptionJobCreate,
    EstimateView,
    GenerateEstimate,
    GenerateJobCreate,
    JobInput,
    JobView,
    ModelsView,
    ModelView,
)


class Submission(Generic[J]):
    """The calls of a client that make jobs."""

    _api: Api
    _transfers: Transfers

    def _job(self, view: JobView) -> J:
        raise NotImplementedError

    @property
    def _uploads(self) -> Uploads:
        return Uploads(self._api, self._transfers)

    @Call
    def caption(
        self,
        /,
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
        reuse: bool = True,
        sample: int | None = None,
        idempotency_key: str | None = None,
        out: str | Path | Output | None = None,
        existing: Existing | str | None = None,
        **options: Any,
    ) -> Steps[J]:
        """Caption images.

        Args:
            sources: files, folders, globs, `.jsonl`, `.csv`, `.parquet`, WebDataset `.tar` (braces too), a pandas
                DataFrame, a dataset of `datasets`, pictures of Pillow; one, or a list or a stream of them. Or `s3://`
                URLs of folders and tars that the server's operator opened, which are read where they lie.
            image_column, id_column, prompt_column: of tables; of tars the last two name entries of `key.json`.
            window: at which hours it may run, such as `22:00-06:00 Europe/Berlin`.
            deadline_at: when it ends, finished or not.
            reuse: take results that the team has, and compute equal images once; else everything is computed.
            sample: how many items to try it on first, one of each equal stretch of the input; `job.approve()` makes
                the job of all.
            idempotency_key: with the same arguments the same job, and its files are not sent again.
            out: where the results will be written; it is looked at before anything is sent.
            existing: with `skip`, items that have their result in `out` are not submitted. Where it is left out and
                `out` holds results, BadOutput.
            options: those of `CaptionOptions`: prompt, prefix, avoid, min_tokens, max_tokens, temperature, top_p,
                top_k, seed. A prompt may name fields of each item: `"A photo tagged {tags}. Describe it."`.
        Images go straight to the store while the sources are read. Raises BadSource, of it NothingToSubmit where each
        item has its result; BadOutput, InvalidOption.
        """
        checked = cast(CaptionOptions, check_options(JobKind.caption, options))  # told before anything is sent
        guard = Guard.of(JobKind.caption, out, existing)
        columns = Columns(image_column, id_column, prompt_column, words_of(checked.prompt))
        urls = bucket_urls(sources)
        if urls and columns.is_told:
            raise InvalidOption("columns are for tables; of s3:// nothing has any")
        if urls and guard.skips:
            raise InvalidOption("what lies in s3:// is listed by the server, so nothing of it can be skipped here")
        request = build_request(
            CaptionJobCreate,
            kind="caption",
            name=name or f"caption {name_sources(sources)}"[:200],
            model=(yield from self._known_model(model)),
            priority=priority,
            window=window,
            deadline_at=deadline_at,
            shard_items=shard_items,
            reuse=reuse,
            sample=sample,
            options=checked,
            input=JobInput(s3=urls) if urls else JobInput(upload="to be made", manifest=MANIFEST),
        )
        if not urls:
            items = read_image_sources(sources, columns)
            request.input.upload = yield from self._send(items, guard, idempotency_key, with_digests=reuse)
        return (yield from self._create(request, idempotency_key))

    @Call
    def generate(
        self,
        /,
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
        reuse: bool = True,
        sample: int | None = None,
        idempotency_key: str | None = None,
        out: str | Path | Output | None = None,
        existing: Existing | str | None = None,
        **options: Any,
    ) -> Steps[J]:
        """Generate images from prompts.

        Args:
            file: with a prompt a line, or of `.jsonl` an object a line, or of `.csv` and `.parquet` a row each; a
                DataFrame or a dataset too.
            template: the prompt of each row, with its cells in it: `"a {color} {animal}"`.
            id_column, prompt_column: of tables.
            sweep: options with several values: `{"guidance": [3, 5], "seed": [1, 2]}` draws each prompt four times.
            window, deadline_at, reuse, sample, idempotency_key: as in `caption`.
            out, existing: as in `caption`; an item is known by its id and prompt.
            options: those of `GenerateOptions`: images, guidance, temperature, top_p, top_k, steps, solver, seed.
        Raises BadSource, BadOutput, InvalidOption.
        """
        checked = cast(GenerateOptions, check_options(JobKind.generate, options))
        guard = Guard.of(JobKind.generate, out, existing)
        items = _prompts(prompts, file, Columns(None, id_column, prompt_column), template, sweep, checked, options)
        request = build_request(
            GenerateJobCreate,
            kind="generate",
            name=name or (f"generate {Path(file).name}" if isinstance(file, str | Path) else "generate"),
            model=(yield from self._known_model(model)),
            priority=priority,
            window=window,
            deadline_at=deadline_at,
            shard_items=shard_items,
            reuse=reuse,
            sample=sample,
            options=checked,
            input=JobInput(upload="to be made", manifest=MANIFEST),
        )
        request.input.upload = yield from self._send(items, guard, idempotency_key)
        return (yield from self._create(request, idempotency_key))

    @Call
    def estimate(
        self,
        kind: JobKind | str,
        /,
        sources: Any = (),
        *,
        num_items: int | None = None,
        image_column: str | None = None,
        id_column: str | None = None,
        prompt_column: str | None = None,
        file: Any = None,
        template: str | None = None,
        sweep: Mapping[str, Sequence[Any]] | None = None,
        model: str | None = None,
        priority: int = 0,
        window: str | None = None,
        deadline_at: datetime | None = None,
        shard_items: int | None = None,
        out: str | Path | Output | None = None,
        existing: Existing | str | None = None,
        **options: Any,
    ) -> Steps[EstimateView]:
        """What a job would take that is submitted now; nothing is made, and nothing is sent but the number of items.

        Args:
            kind: `caption` or `generate`; the rest is what the call of that name takes.
            sources: images, or prompts: they are counted, and not opened further than that needs.
            num_items: in their place, of what only the server can list, such as `s3://`.
        Raises BadSource, of it NothingToSubmit; BadOutput, InvalidOption.
        """
        which = _kind_of(kind)
        checked = check_options(which, options)
        if num_items is None:
            if which is JobKind.caption:
                columns = Columns(image_column, id_column, prompt_column, words_of(str(options.get("prompt", ""))))
                if bucket_urls(sources):
                    raise InvalidOption("only the server can list s3://; say how many images lie there: num_items=")
                items: Iterable[SourceItem] = read_image_sources(sources, columns)
            else:
                columns = Columns(None, id_column, prompt_column)
                drawn = cast(GenerateOptions, checked)
                items = _prompts(sources, file, columns, template, sweep, drawn, options)
            guard = Guard.of(which, out, existing, only_counts=True)
            num_items = yield from work(lambda: sum(1 for _ in guard.wanted(items)))
            if not num_items:
                raise guard.nothing_left()
        request = build_request(
            CaptionEstimate if which is JobKind.caption else GenerateEstimate,
            kind=str(which),
            model=(yield from self._known_model(model)),
            items=num_items,
            priority=priority,
            window=window,
            deadline_at=deadline_at,
            shard_items=shard_items,
            options=checked,
        )
        body = request.model_dump(mode="json")
        return (yield from self._api.call(EstimateView, "POST", "/v1/estimates", body=body, repeatable=True))

    def _send(
        self, items: Iterable[SourceItem], guard: Guard, idempotency_key: str | None, *, with_digests: bool = False
    ) -> Steps[str]:
        """The upload of the items that the guard lets through."""
        try:
            return (yield from self._uploads.send(guard.wanted(items), idempotency_key, with_digests=with_digests))
        except NothingToSubmit:
            raise guard.nothing_left() from None

    def _create(self, request: CaptionJobCreate | GenerateJobCreate, idempotency_key: str | None) -> Steps[J]:
        body = request.model_dump(mode="json")
        key = idempotency_key or new_idempotency_key()
        return self._job((yield from self._api.call(JobView, "POST", "/v1/jobs", body=body, idempotency_key=key)))

    def _look_at_models(self) -> Steps[list[ModelView]]:
        return (yield from self._api.call(ModelsView, "GET", "/v1/models")).models

    def _known_model(self, name: str | None) -> Steps[str]:
        """The model asked for, or the one that is served. Raises ClientError where there is none, or a choice."""
        models = yield from self._look_at_models()
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


def _prompts(
    prompts: Any,
    file: Any,
    columns: Columns,
    template: str | None,
    sweep: Mapping[str, Sequence[Any]] | None,
    checked: GenerateOptions,
    given: Mapping[str, Any],
) -> Iterable[SourceItem]:
    """The items of a generation job. Raises BadSource, InvalidOption."""
    given_twice = sorted(set(given) & set(sweep or {}))
    if given_twice:
        raise InvalidOption(f"{given_twice[0]} is swept and given for the whole job too; leave one out")
    several = [prompts] if isinstance(prompts, str) else prompts
    items = read_prompt_sources(several, file, columns, template)
    return sweep_over(items, sweep, checked) if sweep else items


def _kind_of(kind: JobKind | str) -> JobKind:
    try:
        return JobKind(kind)
    except ValueError:
        raise InvalidOption(f"there are no jobs of kind {kind!r}; there are {' and '.join(JobKind)}") from None
