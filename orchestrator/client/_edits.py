"""Results with what people made of them: their captions in place of the model's, and who was approved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.client._job import Job


def with_edits(job: Job, results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines, in item order; one that was edited or approved has the fields `edited` and `approved` besides."""
    edits = job.edits()
    edit = next(edits, None)
    for result in results:
        while edit is not None and edit.index < result["index"]:
            edit = next(edits, None)
        if edit is None or edit.index != result["index"] or "failure" in result:
            yield result
            continue
        caption = {} if edit.caption is None else {"caption": edit.caption}
        yield result | caption | {"edited": edit.caption is not None, "approved": edit.approved_at is not None}
