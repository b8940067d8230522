"""A job in hand: look, wait, read results while it runs, download, verify."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.client._downloads import download_results, encode_result, finished_results
from orchestrator.client._errors import JobNotEnded
from orchestrator.client._http import Http
from orchestrator.client._progress import ProgressBar
from orchestrator.client._transfers import Transfers
from orchestrator.client._verify import Verification, verify_job
from orchestrator.schemas import (
    DownloadsCreate,
    EventsPage,
    EventView,
    FailuresPage,
    FailureView,
    JobView,
    PartsPage,
    PartView,
    UrlsView,
)

FIRST_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 2.0


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
        """Wait for the job's end. Raises JobNotEnded at the timeout; the job goes on."""
        give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with ProgressBar(enabled=progress) as bar:
            for pause in _growing_pauses():
                view = self.refresh()
                bar.show(view)
                if on_poll is not None:
                    on_poll(view)
                if view.state.ended:
                    return view
                if give_up_at is not None and time.monotonic() + pause > give_up_at:
                    raise JobNotEnded(
                        f"{self.id} is {view.state} after {timeout_seconds} s: {view.waiting_reason or ''}"
                    )
                time.sleep(pause)
        raise AssertionError("unreachable")

    def cancel(self) -> JobView:
        return self._act("cancel")

    def pause(self) -> JobView:
        return self._act("pause")

    def resume(self) -> JobView:
        return self._act("resume")

    def retry_failures(self) -> Job:
        """A new job of the items that failed, with the same ids and seeds."""
        view = self._http.call(JobView, "POST", f"/v1/jobs/{self.id}/retry")
        return Job(self._http, self._transfers, view)

    def results(self) -> Iterator[dict[str, Any]]:
        """Result lines in item order, each as soon as its shard is finished; ends when the job has."""
        index, pauses = 0, _growing_pauses()
        while True:
            page = self.parts(from_index=index)
            for first in sorted({part.first_index for part in page.parts}):
                yield from self._shard_lines([part for part in page.parts if part.first_index == first])
            if page.complete:
                return
            if page.next_index == index:
                time.sleep(next(pauses))
                if self.ended or self.refresh().state.ended:
                    pauses = _growing_pauses()
            else:
                index, pauses = page.next_index, _growing_pauses()

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
        yield from (encode_result(result) for result in finished_results(self))

    def download(self, path: str | Path) -> Path:
        """Write the results to `path`: `.jsonl`, `.csv`, or a folder (captions as `.txt`, images as `.png`)."""
        return download_results(self, Path(path))

    def verify(self) -> Verification:
        """Recompute the job's promise from its objects: every item once, every digest right."""
        return verify_job(self)

    def urls(self, names: list[str]) -> list[str]:
        """Presigned URLs of objects of this job."""
        body = DownloadsCreate(names=names).model_dump()
        return self._http.call(UrlsView, "POST", f"/v1/jobs/{self.id}/downloads", body=body).urls

    def fetch(self, url: str) -> bytes:
        return self._transfers.get(url)

    @property
    def transfers(self) -> Transfers:
        return self._transfers

    def _act(self, verb: str) -> JobView:
        self.view = self._http.call(JobView, "POST", f"/v1/jobs/{self.id}/{verb}")
        return self.view

    def _shard_lines(self, parts: list[PartView]) -> list[dict[str, Any]]:
        lines = [json.loads(line) for part in parts for line in self._transfers.get(part.url).splitlines()]
        first, end = parts[0].first_index, parts[0].end_index
        return sorted((line for line in lines if first <= line["index"] < end), key=lambda line: int(line["index"]))


def _growing_pauses() -> Iterator[float]:
    pause = FIRST_POLL_SECONDS
    while True:
        yield pause
        pause = min(pause * 1.3, MAX_POLL_SECONDS)
