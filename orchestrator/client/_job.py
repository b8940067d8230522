"""A job in hand: look, wait, read results while it runs, download, verify. The same calls block or are awaited."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from orchestrator.client._errors import JobNotEnded, NoResult
from orchestrator.client._faces import Awaited, Blocking, Call, Listing
from orchestrator.client._http import Api, new_idempotency_key
from orchestrator.client._lines import ResultLine, encode_line
from orchestrator.client._options import build_request
from orchestrator.client._outputs import Existing, Form, Output, Sidecar, download_results, write_dataset, write_frame
from orchestrator.client._parts import finished_results, shard_lines
from orchestrator.client._progress import ProgressBar
from orchestrator.client._replays import Replay, compare
from orchestrator.client._retries import MAX_SILENCE_SECONDS, Patience, growing_pauses
from orchestrator.client._sheets import draw_sheet
from orchestrator.client._steps import Pause, Steps, Stream, work
from orchestrator.client._transfers import Transfers
from orchestrator.client._verify import Verification, verify_job
from orchestrator.domain.jobs import JobState
from orchestrator.schemas import (
    ApproveCreate,
    DownloadsCreate,
    EditsPage,
    EditView,
    EventsPage,
    EventView,
    FailuresPage,
    FailureView,
    JobView,
    PartsPage,
    ReplayCreate,
    RetryCreate,
    UrlsView,
)

if TYPE_CHECKING:
    import datasets
    import pandas

J = TypeVar("J", bound="JobCalls[Any]")
"""What a call gives for a job: Job, or AsyncJob."""


class JobCalls(Generic[J]):
    """What can be done with a job. `view` is what was last seen of it; `refresh()` looks again."""

    def __init__(self, driver: Any, api: Api, transfers: Transfers, view: JobView) -> None:
        self._driver = driver
        self._api = api
        self.transfers = transfers
        self.view = view

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def ended(self) -> bool:
        return self.view.state.ended

    def __repr__(self) -> str:
        items = self.view.items
        counts = f"{items.finished}/{items.total} items, {items.failures} failed"
        return f"<{type(self).__name__} {self.id} {self.view.state} {counts}>"

    # --- Look -----------------------------------------------------------------------------------------------------

    @Call
    def refresh(self) -> Steps[JobView]:
        """Look at the job again."""
        return self.look()

    @Call
    def wait(
        self,
        timeout_seconds: float | None = None,
        *,
        progress: bool = False,
        on_poll: Callable[[JobView], None] | None = None,
    ) -> Steps[JobView]:
        """Wait for the job's end, however often the server is away for a while.

        Args:
            progress: show how it goes: a bar on a terminal and in a notebook, else a line every few seconds.
        Raises:
            JobNotEnded: at the timeout; the job goes on.
            ConnectionFailed, ServerError: where no timeout was given, after ten minutes without an answer.
        """
        give_up_at = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        patience = Patience(MAX_SILENCE_SECONDS if timeout_seconds is None else math.inf)
        with ProgressBar(enabled=progress) as bar:
            for seconds in growing_pauses():
                view = yield from patience.ask(self.look())
                if view is None:
                    bar.tell_silence(self.id)
                else:
                    bar.show(view)
                    if on_poll is not None:
                        on_poll(view)
                    if view.state.ended:
                        return view
                if time.monotonic() + seconds > give_up_at:
                    reason = "the server does not answer" if view is None else view.waiting_reason or ""
                    raise JobNotEnded(f"{self.id} is {self.view.state} after {timeout_seconds} s: {reason}")
                yield Pause(seconds)
        raise AssertionError("unreachable")

    @Listing
    def failures(self) -> Stream[FailureView, None]:
        """Items without a result, in item order."""
        path = f"/v1/jobs/{self.id}/failures"
        return self._api.listed(FailuresPage, path, "after_index", lambda page: (page.failures, page.next_index))

    @Listing
    def events(self) -> Stream[EventView, None]:
        """What happened to the job and its shards, in order."""
        path = f"/v1/jobs/{self.id}/events"
        return self._api.listed(EventsPage, path, "after_id", lambda page: (page.events, page.next_id))

    # --- Change ---------------------------------------------------------------------------------------------------

    @Call
    def cancel(self) -> Steps[JobView]:
        """Stop it; what is finished stays."""
        return self._act("cancel")

    @Call
    def pause(self) -> Steps[JobView]:
        """Start nothing more until it is resumed."""
        return self._act("pause")

    @Call
    def resume(self) -> Steps[JobView]:
        """Go on after a pause."""
        return self._act("resume")

    @Call
    def delete(self) -> Steps[None]:
        """Delete a job that has ended, with all that it made; and its upload, where no other job uses that.

        Raises Conflict while it runs.
        """
        yield from self._api.send("DELETE", f"/v1/jobs/{self.id}")

    @Call
    def retry_failures(self, *, codes: Iterable[str] | None = None, idempotency_key: str | None = None) -> Steps[J]:
        """A new job of the items that failed, with the same ids and seeds; the same job for the same key.

        Args:
            codes: of the failures that are worth another try; all where they are left out.
        Raises:
            Conflict: the job has not ended, or no item failed so.
        """
        key = idempotency_key or new_idempotency_key()
        body = RetryCreate(codes=None if codes is None else sorted(set(codes))).model_dump(exclude_none=True)
        path = f"/v1/jobs/{self.id}/retry"
        view = yield from self._api.call(JobView, "POST", path, body=body, idempotency_key=key)
        return self._other(view)

    @Call
    def approve(
        self,
        /,
        *,
        sample: int | None = None,
        window: str | None = None,
        deadline_at: datetime | None = None,
        **options: Any,
    ) -> Steps[J]:
        """Of a sample: a job of the whole input, where what the sample has a result of is not computed again.

        Approving twice gives the same job.

        Args:
            sample: a sample of so many items instead, to be looked at first; of the same items, unless their number or
                the seed is another.
            window, deadline_at: when it runs, and when it ends; as of the sample where they are left out.
            options: those that are to be otherwise than in the sample, as of `client.caption` and `client.generate`.
        Raises:
            Conflict: it is no sample, has not completed, was rejected, or was approved with other options.
            InvalidOption.
        """
        asked = {"options": options or None, "sample": sample, "window": window, "deadline_at": deadline_at}
        body = build_request(ApproveCreate, **asked).model_dump(mode="json", exclude_defaults=True)
        path = f"/v1/jobs/{self.id}/approve"
        return self._other((yield from self._api.call(JobView, "POST", path, body=body, repeatable=True)))

    @Call
    def reject(self) -> Steps[JobView]:
        """Of a sample: it cannot be approved any more, and its input is kept no longer than that of other jobs."""
        return self._act("reject")

    @Call
    def replay(self, index: int, *, timeout_seconds: float | None = None, progress: bool = False) -> Steps[Replay]:
        """Make one item again, with its options, prompt and seed, and compare what comes with its result.

        Raises:
            NoResult: there is no such item, or it has no result yet.
            JobNotEnded: at the timeout.
        """
        before = yield from self.look_at_line(index)
        body, key = ReplayCreate(index=index).model_dump(), new_idempotency_key()
        path = f"/v1/jobs/{self.id}/replay"
        made = self._other((yield from self._api.call(JobView, "POST", path, body=body, idempotency_key=key)))
        yield from JobCalls.wait.steps(made, timeout_seconds, progress=progress)
        return (yield from compare(self, made, before))

    # --- Results --------------------------------------------------------------------------------------------------

    @Listing
    def results(self) -> Stream[ResultLine, None]:
        """Result lines in item order, each as soon as its shard is finished; ends when the job has.

        Raises ConnectionFailed or ServerError after ten minutes without an answer, TransferFailed.
        """
        return finished_results(self, lambda line: cast(ResultLine, line), follow=True)

    @Listing
    def finished_lines(self) -> Stream[bytes, None]:
        """Result lines that are there now, as JSON text, without waiting for more."""
        return finished_results(self, encode_line, follow=False)

    @Listing
    def edits(self) -> Stream[EditView, None]:
        """What people made of the results, in item order: other captions, and approvals."""
        return self.look_at_edits()

    @Call
    def parts(self, *, from_index: int = 0, limit: int = 100) -> Steps[PartsPage]:
        """A page of finished parts, in item order."""
        return self.look_at_parts(from_index, limit)

    @Call
    def urls(self, names: list[str]) -> Steps[list[str]]:
        """Presigned URLs of objects of this job."""
        return self.make_urls(names)

    @Call
    def download(
        self,
        path: str | Path | Output,
        *,
        form: Form | str | None = None,
        existing: Existing | str | None = None,
        sidecar: Sidecar | str = Sidecar.txt,
        tars: Iterable[str | Path] = (),
        shard_items: int = 1000,
        edited: bool = False,
    ) -> Steps[Path]:
        """Write what is finished: `.jsonl`, `.csv`, `.parquet`, or a folder of sidecars or images.

        Args:
            path: a place, or an Output, which says all that follows.
            form: what the path's ending does not say: `webdataset` and `dataset` are folders too.
            existing: what to do with results that are there already: `skip`, `overwrite`, `append` or `prepend`.
                Where it is left out a file is replaced, and a caption that somebody else wrote is a BadOutput.
            sidecar: what stands beside each name in a folder of captions: its text, or its line as `json`.
            tars: of `webdataset`, the local tars that were captioned: their samples are copied, a tar for each.
            shard_items: of `webdataset` without tars, items in each.
            edited: with the captions that people wrote in place of the model's.
        Raises:
            BadOutput: it cannot be written there, or not so.
            PackageMissing: the form needs an extra of this package.
            TransferFailed: an object cannot be read, or is not as it was made.
        """
        if not isinstance(path, Output):
            path = Output.of(path, form, existing=existing, sidecar=sidecar, tars=tars, shard_items=shard_items)
        return download_results(self, path, edited=edited)

    @Call
    def contact_sheet(self, path: str | Path, sources: Any = None) -> Steps[Path]:
        """Draw the first results as one picture: each with its caption, or prompts with what was drawn of them.

        Args:
            sources: what was captioned, as it was given to `client.caption`: pictures are read from there.
        Raises:
            PackageMissing: it needs the extra `pictures`.
        """
        return draw_sheet(self, Path(path), sources)

    @Call
    def to_pandas(self) -> Steps[pandas.DataFrame]:
        """What is finished as a DataFrame, in memory: the columns of `.parquet`. Needs the extra `tables`."""
        return write_frame(self)

    @Call
    def to_dataset(self, folder: str | Path | None = None) -> Steps[datasets.Dataset]:
        """What is finished as a `datasets.Dataset` on disk, drawn images in it. Needs the extra `datasets`.

        Args:
            folder: where it is kept, for `datasets.load_from_disk`; without it, until this process ends.
        """
        return write_dataset(self, None if folder is None else Path(folder))

    @Call
    def verify(self) -> Steps[Verification]:
        """Recompute the job's promise from its objects: every item once, every digest right."""
        return verify_job(self)

    # --- As steps, for what is made of several calls ----------------------------------------------------------------

    def look(self) -> Steps[JobView]:
        self.view = yield from self._api.call(JobView, "GET", f"/v1/jobs/{self.id}")
        return self.view

    def look_at_parts(self, from_index: int, limit: int) -> Steps[PartsPage]:
        params = {"from_index": from_index, "limit": limit}
        return (yield from self._api.call(PartsPage, "GET", f"/v1/jobs/{self.id}/results", params=params))

    def look_at_line(self, index: int) -> Steps[ResultLine]:
        """The result or failure of one item. Raises NoResult where there is none, or none yet."""
        path, params = f"/v1/jobs/{self.id}/results", {"index": index}
        page = yield from self._api.call(PartsPage, "GET", path, params=params)
        for line in (yield from work(partial(shard_lines, self, page.parts))):
            if line["index"] == index:
                return cast(ResultLine, line)
        total = self.view.items.total
        if self.view.state is not JobState.accepted and index >= total > 0:
            raise NoResult(f"{self.id} has no item {index}: it has {total}, from 0 to {total - 1}")
        raise NoResult(f"item {index} of {self.id} has no result; `janus jobs show {self.id}` says how the job stands")

    def look_at_edits(self) -> Stream[EditView, None]:
        path = f"/v1/jobs/{self.id}/edits"
        return self._api.listed(EditsPage, path, "after_index", lambda page: (page.edits, page.next_index))

    def make_urls(self, names: list[str]) -> Steps[list[str]]:
        body = DownloadsCreate(names=names).model_dump()
        path = f"/v1/jobs/{self.id}/downloads"
        return (yield from self._api.call(UrlsView, "POST", path, body=body, repeatable=True)).urls

    def _other(self, view: JobView) -> J:
        return cast(J, type(self)(self._driver, self._api, self.transfers, view))

    def _act(self, verb: str) -> Steps[JobView]:
        self.view = yield from self._api.call(JobView, "POST", f"/v1/jobs/{self.id}/{verb}", repeatable=True)
        return self.view


class Job(JobCalls["Job"], Blocking):
    """A job of `Client`: each call blocks until it is done."""


class AsyncJob(JobCalls["AsyncJob"], Awaited):
    """A job of `AsyncClient`: each call is awaited, each iteration is `async for`."""
