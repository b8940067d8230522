"""Result lines of the shards that are finished, in item order, while the job runs or after."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from orchestrator.client._errors import TransferFailed
from orchestrator.client._retries import MAX_SILENCE_SECONDS, Patience, growing_pauses
from orchestrator.schemas import PartView

if TYPE_CHECKING:
    from orchestrator.client._job import Job

PAGE_SHARDS = 10  # a page's URLs expire, and whoever reads the lines may take their time


def finished_results(job: Job, *, follow: bool) -> Iterator[dict[str, Any]]:
    """Result lines in item order, up to the first shard that is still open.

    Args:
        follow: wait for that shard and go on until the job's end, however often the server is away for a while.
    Raises:
        TransferFailed: a part could not be read, not even with fresh URLs.
    """
    patience, pauses = Patience(MAX_SILENCE_SECONDS if follow else 0), growing_pauses()
    index, renewed_at = 0, -1
    while True:
        page = patience.ask(partial(job.parts, from_index=index, limit=PAGE_SHARDS))
        if page is None:
            time.sleep(next(pauses))
            continue
        failed_at = yield from _read_shards(job, page.parts, renewed_at)
        if failed_at is not None:
            index = renewed_at = failed_at
        elif page.complete or (page.next_index == index and not follow):
            return
        elif page.next_index == index:
            time.sleep(next(pauses))
            patience.ask(job.refresh)
        else:
            index, pauses = page.next_index, growing_pauses()


def _read_shards(job: Job, parts: Iterable[PartView], renewed_at: int) -> Generator[dict[str, Any], None, int | None]:
    """Yield a page's lines; return where to ask for fresh URLs when those of a shard do not work any more."""
    for first_index, shard in groupby(sorted(parts, key=_first_index), key=_first_index):
        try:
            lines = _shard_lines(job, list(shard))
        except TransferFailed:
            if first_index == renewed_at:
                raise
            return first_index
        yield from lines
    return None


def _shard_lines(job: Job, parts: list[PartView]) -> list[dict[str, Any]]:
    """A shard's lines in item order; its parts lie in the order in which they were written."""
    lines: dict[int, dict[str, Any]] = {}
    for part in parts:
        data = job.fetch(part.url)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise TransferFailed(f"a part of {job.id} has changed since it was written; run `janus jobs verify`")
        for line in data.splitlines():
            result = json.loads(line)
            if part.first_index <= result["index"] < part.end_index:
                lines[result["index"]] = result
    return [lines[index] for index in sorted(lines)]


def _first_index(part: PartView) -> int:
    return part.first_index
