"""A result line, as `job.results()` gives it and as `results.jsonl` holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, Required, TypeAlias, TypedDict

Line: TypeAlias = dict[str, Any]
"""A line while it travels: fields that a newer server adds are kept."""


class FailureRecord(TypedDict):
    """Why an item has no result: a code for programs, a sentence for people."""

    code: str
    message: str
    attempts: int


class ImageRecord(TypedDict):
    """A drawn image: its name, SHA-256 as hexadecimal digits, size in pixels, and seed."""

    file: str
    sha256: str
    width: int
    height: int
    seed: int


class ResultLine(TypedDict, total=False):
    """One finished item: `caption` of a captioning job, `images` of a generation job, or `failure`."""

    index: Required[int]
    id: Required[str]
    caption: str
    num_tokens: int
    finish_reason: str
    seed: int
    prompt: str
    images: list[ImageRecord]
    model: str
    revision: str
    failure: FailureRecord


def read_lines(file: IO[bytes]) -> Iterator[Line]:
    """The results in a file, one at a time, from its beginning."""
    file.seek(0)
    for line in file:
        yield json.loads(line)


def encode_line(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
