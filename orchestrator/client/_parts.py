"""Result lines of the shards that are finished, in item order, while the job runs or after."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.client._errors import TransferFailed
from orchestrator.client._lines import Line
from orchestrator.client._retries import MAX_SILENCE_SECONDS, Patience, growing_pauses
from orchestrator.client._steps import Emit, Pause, Stream, work
from orchestrator.schemas import PartView

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls

T = TypeVar("T")
PAGE_SHARDS = 10  # a page's URLs expire, and whoever reads the lines may take their time


def finished_results(job: JobCalls[Any], shape: Callable[[Line], T], *, follow: bool) -> Stream[T, None]:
    """Result lines in item order, up to the first shard that is still open.

    Args:
        shape: makes of each line what is handed on.
        follow: wait for that shard and go on until the job's end, however often the server is away for a while.
    Raises:
        TransferFailed: a part could not be read, not even with fresh URLs.
    """
    patience, pauses = Patience(MAX_SILENCE_SECONDS if follow else 0), growing_pauses()
    index, renewed_at = 0, -1
    while True:
        page = yield from patience.ask(job.look_at_parts(index, PAGE_SHARDS))
        if page is None:
            yield Pause(next(pauses))
            continue
        failed_at = yield from _read_shards(job, page.parts, shape, renewed_at)
        if failed_at is not None:
            index = renewed_at = failed_at
        elif page.complete or (page.next_index == index and not follow):
            return
        elif page.next_index == index:
            yield Pause(next(pauses))
            yield from patience.ask(job.look())
        else:
            index, pauses = page.next_index, growing_pauses()


def _read_shards(
    job: JobCalls[Any], parts: Iterable[PartView], shape: Callable[[Line], T], renewed_at: int
) -> Stream[T, int | None]:
    """Yield a page's lines; return where to ask for fresh URLs when those of a shard do not work any more."""
    for first_index, shard in groupby(sorted(parts, key=_first_index), key=_first_index):
        try:
            lines = yield from work(partial(shard_lines, job, list(shard)))
        except TransferFailed:
            if first_index == renewed_at:
                raise
            return first_index
        for line in lines:
            yield Emit(shape(line))
    return None


def shard_lines(job: JobCalls[Any], parts: list[PartView]) -> list[Line]:
    """A shard's lines in item order; its parts lie in the order in which they were written."""
    lines: dict[int, Line] = {}
    for part in parts:
        data = job.transfers.get(part.url)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise TransferFailed(f"a part of {job.id} has changed since it was written; run `janus jobs verify`")
        for line in data.splitlines():
            result = json.loads(line)
            if part.first_index <= result["index"] < part.end_index:
                lines[result["index"]] = result
    return [lines[index] for index in sorted(lines)]


def _first_index(part: PartView) -> int:
    return part.first_index
