"""An item that was made again, beside the item that it was: what its page says of the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.api.dependencies import Services, team_session
from orchestrator.dashboard import items
from orchestrator.dashboard.items import Seen
from orchestrator.db import jobs
from orchestrator.db.tables import JobRow
from orchestrator.db.teams import Caller
from orchestrator.domain.errors import NotFound
from orchestrator.domain.replays import compare_lines


@dataclass(frozen=True)
class Replayed:
    """A heading, and a sentence for each difference."""

    words: str
    differences: tuple[str, ...]


def look(job: JobRow, seen: Seen, caller: Caller, services: Services) -> Replayed | None:
    """Of an item of a replay; None of any other, and where one of the two has no result. Raises StoreError."""
    if job.replay_index is None or job.retry_of is None or seen.line is None:
        return None
    before = _line_of(job.retry_of, job.replay_index, caller, services)
    return None if before is None else _say(before, seen.line)


def _line_of(job_id: str, index: int, caller: Caller, services: Services) -> dict[str, Any] | None:
    with team_session(services, caller) as session:
        try:
            row = jobs.get_job(session, job_id)
        except NotFound:
            return None  # deleted since
        rows = items.rows_between(session, row, index, index + 1)
    return next((seen.line for seen in items.see(rows, services.store)), None)


def _say(before: Mapping[str, Any], now: Mapping[str, Any]) -> Replayed:
    found = compare_lines(before, now)
    heading = "Made again: the same" if found.same else "Made again: different"
    return Replayed(heading, tuple(_sentences(found.words, found.images, found.same_weights, found.revisions)))


def _sentences(
    words: tuple[str, ...], images: tuple[int, ...], same_weights: bool, revisions: tuple[str, str]
) -> Iterator[str]:
    yield from words
    for k in images:
        yield f"picture {k} has other bytes; janus replay says how many pixels differ"
    if not same_weights:
        yield f"the model's weights are others: revision {revisions[0]} before, {revisions[1]} now"
