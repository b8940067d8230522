"""Results with what people made of them: their captions in place of the model's, and who was approved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._steps import Steps, drain
from orchestrator.schemas import EditView

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls


def write_edited(job: JobCalls[Any], results: IO[bytes], file: IO[bytes]) -> Steps[None]:
    """The lines, in item order; one that was edited or approved has the fields `edited` and `approved` besides."""
    edits = list[EditView]()  # what people wrote by hand fits into memory
    yield from drain(job.look_at_edits(), edits.append)
    for line in _with_edits(read_lines(results), {edit.index: edit for edit in edits}):
        file.write(encode_line(line))


def _with_edits(lines: Iterator[Line], edits: dict[int, EditView]) -> Iterator[Line]:
    for line in lines:
        edit = edits.get(line["index"])
        if edit is None or "failure" in line:
            yield line
            continue
        caption = {} if edit.caption is None else {"caption": edit.caption}
        yield line | caption | {"edited": edit.caption is not None, "approved": edit.approved_at is not None}
