"""A job in hand: look, wait, read results while it runs, download, verify."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.client._downloads import download_results, encode_result
from orchestrator.client._errors import JobNotEnded
from orchestrator.client._http import Http, new_idempotency_key
from orchestrator.client._parts import finished_results
from orchestrator.client._progress import ProgressBar
from orchestrator.client._retries import MAX_SILENCE_SECONDS, Patience, growing_pauses
from orchestrator.client._transfers import Transfers
from orchestrator.client._verify import Verification, verify_job
from orchestrator.schemas import (
    DownloadsCreate,
    EditsPage,
    EditView,
    EventsPage,
    EventView,
    FailuresPage,
    FailureView,
    JobView,
    PartsPage,
    UrlsView,
)


class Job:
    """A job on the server. `view` is what was last seen of it; `refresh()` looks again."""

    def __init__(self, http: Http, transfers: Transfers, view: JobView) -> None:
        self._http = http
        self._transfers = transfers
        self.view = view

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def ended(self) -> bool:
        return self.view.state.ended

    def __repr__(self) -> str:
        items = self.view.items
        return f"<Job {self.id} {self.view.state} {items.finished}/{items.total} items, {items.failures} failed>"

    def refresh(self) -> JobView:
        self.view = self._http.call(JobView, "GET", f"/v1/jobs/{self.id}")
        return self.view

    def wait(
        self,
        timeout_seconds: float | None = None,
        *,
        progress: bool = False,
        on_poll: Callable[[JobView], None] | None = None,
    ) -> JobView:
        """Wait for the job's end, however often the server is away for a while.

        Raises:
            JobNotEnded: at the timeout; the job goes on.
            ConnectionFailed, ServerError: where no timeout was given, after ten minutes without an answer.
        """
        give_up_at = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        patience = Patience(MAX_SILENCE_SECONDS if timeout_seconds is None else math.inf)
        with ProgressBar(enabled=progress) as bar:
            for pause in growing_pauses():
                view = patience.ask(self.refresh)
                if view is None:
                    bar.tell_silence(self.id)
                else:
                    bar.show(view)
                    if on_poll is not None:
                        on_poll(view)
                    if view.state.ended:
                        return view
                if time.monotonic() + pause > give_up_at:
                    reason = "the server does not answer" if view is None else view.waiting_reason or ""
                    raise JobNotEnded(f"{self.id} is {self.view.state} after {timeout_seconds} s: {reason}")
                time.sleep(pause)
        raise AssertionError("unreachable")

    def cancel(self) -> JobView:
        return self._act("cancel")

    def pause(self) -> JobView:
        return self._act("pause")

    def resume(self) -> JobView:
        return self._act("resume")

    def delete(self) -> None:
        """Delete a job that has ended, with all that it made; and its upload, where no other job uses that.

        Raises Conflict while it runs.
        """
        self._http.send("DELETE", f"/v1/jobs/{self.id}")

    def retry_failures(self, *, idempotency_key: str | None = None) -> Job:
        """A new job of the items that failed, with the same ids and seeds; the same job for the same key."""
        key = idempotency_key or new_idempotency_key()
        view = self._http.call(JobView, "POST", f"/v1/jobs/{self.id}/retry", idempotency_key=key)
        return Job(self._http, self._transfers, view)

    def results(self) -> Iterator[dict[str, Any]]:
        """Result lines in item order, each as soon as its shard is finished; ends when the job has.

        Raises ConnectionFailed or ServerError after ten minutes without an answer, TransferFailed.
        """
        yield from finished_results(self, follow=True)

    def parts(self, *, from_index: int = 0, limit: int = 100) -> PartsPage:
        """A page of finished parts, in item order."""
        params = {"from_index": from_index, "limit": limit}
        return self._http.call(PartsPage, "GET", f"/v1/jobs/{self.id}/results", params=params)

    def failures(self) -> Iterator[FailureView]:
        """Items without a result, in item order."""
        after: int | None = -1
        while after is not None:
            page = self._http.call(FailuresPage, "GET", f"/v1/jobs/{self.id}/failures", params={"after_index": after})
            yield from page.failures
            after = page.next_index

    def events(self) -> Iterator[EventView]:
        after: int | None = 0
        while after is not None:
            page = self._http.call(EventsPage, "GET", f"/v1/jobs/{self.id}/events", params={"after_id": after})
            yield from page.events
            after = page.next_id

    def finished_lines(self) -> Iterator[bytes]:
        """Result lines that are there now, as JSON text, without waiting for more."""
        yield from (encode_result(result) for result in finished_results(self, follow=False))

    def edits(self) -> Iterator[EditView]:
        """What people made of the results, in item order: other captions, and approvals."""
        after: int | None = -1
        while after is not None:
            page = self._http.call(EditsPage, "GET", f"/v1/jobs/{self.id}/edits", params={"after_index": after})
            yield from page.edits
            after = page.next_index

    def download(self, path: str | Path, *, edited: bool = False) -> Path:
        """Write the results to `path`: `.jsonl`, `.csv`, or a folder (captions as `.txt`, images as `.png`).

        Args:
            edited: with the captions that people wrote in place of the model's.
        """
        return download_results(self, Path(path), edited=edited)

    def verify(self) -> Verification:
        """Recompute the job's promise from its objects: every item once, every digest right."""
        return verify_job(self)

    def urls(self, names: list[str]) -> list[str]:
        """Presigned URLs of objects of this job."""
        body = DownloadsCreate(names=names).model_dump()
        return self._http.call(UrlsView, "POST", f"/v1/jobs/{self.id}/downloads", body=body, repeatable=True).urls

    def fetch(self, url: str) -> bytes:
        return self._transfers.get(url)

    @property
    def transfers(self) -> Transfers:
        return self._transfers

    def _act(self, verb: str) -> JobView:
        self.view = self._http.call(JobView, "POST", f"/v1/jobs/{self.id}/{verb}", repeatable=True)
        return self.view
