"""Results as tables: `.jsonl` as they are, `.csv` and `.parquet` in columns. Each is read back as lines too."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.client._errors import BadOutput
from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._outputs.columns import read_parquet, write_parquet
from orchestrator.client._outputs.output import Form
from orchestrator.domain.jobs import JobKind

FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the full-width forms too
CELL_STARTS = tuple("\t\r\n")  # a spreadsheet may drop these, or begin a new cell after them
NUMBERS = ("index", "num_tokens", "seed")
CSV_FIELDS = {
    JobKind.caption: (
        "index",
        "id",
        "caption",
        "num_tokens",
        "finish_reason",
        "seed",
        "model",
        "revision",
        "failure_code",
        "failure_message",
    ),
    JobKind.generate: (
        "index",
        "id",
        "prompt",
        "files",
        "model",
        "revision",
        "failure_code",
        "failure_message",
    ),
}


@dataclass(frozen=True)
class Table:
    """A form that holds all lines in one file."""

    read: Callable[[Path, JobKind], Iterator[Line]]
    write: Callable[[IO[bytes], JobKind, Iterable[Line]], None]


def read_jsonl(path: Path, kind: JobKind) -> Iterator[Line]:
    with path.open("rb") as file:
        try:
            for line in read_lines(file):
                if not isinstance(line, dict) or "index" not in line or "id" not in line:
                    raise _not_ours(path, "a line has no index or id")
                yield line
        except ValueError as error:
            raise _not_ours(path, str(error)) from error


def write_jsonl(file: IO[bytes], kind: JobKind, lines: Iterable[Line]) -> None:
    for line in lines:
        file.write(encode_line(line))


def read_csv(path: Path, kind: JobKind) -> Iterator[Line]:
    """What the columns hold: of a failure no attempts, of an image its file's name only."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != CSV_FIELDS[kind]:
            raise _not_ours(path, f"its columns are not {', '.join(CSV_FIELDS[kind])}")
        for row in rows:
            yield _line_of(row)


def write_csv(file: IO[bytes], kind: JobKind, lines: Iterable[Line]) -> None:
    fields = CSV_FIELDS[kind]
    file.write(_csv_row(fields))
    for line in lines:
        failure = line.get("failure", {})
        row = line | {
            "files": " ".join(image["file"] for image in line.get("images", ())),
            "failure_code": failure.get("code", ""),
            "failure_message": failure.get("message", ""),
        }
        file.write(_csv_row(_defused(row.get(field, "")) for field in fields))


TABLE_OF = {
    Form.jsonl: Table(read_jsonl, write_jsonl),
    Form.csv: Table(read_csv, write_csv),
    Form.parquet: Table(read_parquet, write_parquet),
}


def _not_ours(path: Path, reason: str) -> BadOutput:
    return BadOutput(f"{path} is there and holds no results of such a job ({reason}); take another file, or overwrite")


def _line_of(row: dict[str, str]) -> Line:
    line: Line = {name: _disarmed(value) for name, value in row.items() if value != ""}
    line |= {name: int(line[name]) for name in NUMBERS if name in line}
    if "files" in line:
        line["images"] = [{"file": file} for file in line.pop("files").split()]
    if "failure_code" in line:
        line["failure"] = {"code": line.pop("failure_code"), "message": line.pop("failure_message", "")}
    return line


def _csv_row(values: Iterable[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(values)
    return buffer.getvalue().encode()


def _defused(value: Any) -> Any:
    """A caption that begins like a formula must not run in a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def _disarmed(value: str) -> str:
    return value[1:] if value.startswith("'") and _is_formula(value[1:]) else value


def _is_formula(value: str) -> bool:
    return value[:1] in CELL_STARTS or value.strip()[:1] in FORMULA_STARTS if value else False
