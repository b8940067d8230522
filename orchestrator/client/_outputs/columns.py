"""Result lines in columns with types, as Parquet and Arrow have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._errors import BadOutput, PackageMissing
from orchestrator.client._lines import Line
from orchestrator.domain.jobs import JobKind

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 10_000  # of a batch, which becomes a row group
TEXT_AT_ONCE = 2**21  # characters in a batch; then it ends earlier
FAILURE = {"failure_code": "string", "failure_message": "string"}
COLUMNS = {
    JobKind.caption: {
        "index": "int64",
        "id": "string",
        "caption": "string",
        "num_tokens": "int64",
        "finish_reason": "string",
        "seed": "int64",
        "model": "string",
        "revision": "string",
        **FAILURE,
    },
    JobKind.generate: {
        "index": "int64",
        "id": "string",
        "prompt": "string",
        "images": "images",
        "model": "string",
        "revision": "string",
        **FAILURE,
    },
}
IMAGE = {"file": "string", "sha256": "string", "width": "int64", "height": "int64", "seed": "int64"}


def load_package(name: str, extra: str) -> Any:
    """An optional package. Raises PackageMissing, naming the extra of ours that has it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise PackageMissing(f"this needs {name}: pip install 'janus-batch[{extra}]'") from error


def schema_of(kind: JobKind) -> pa.Schema:
    pa = load_package("pyarrow", "tables")
    images = pa.list_(pa.struct([(name, pa.type_for_alias(alias)) for name, alias in IMAGE.items()]))
    return pa.schema(
        [(name, images if alias == "images" else pa.type_for_alias(alias)) for name, alias in COLUMNS[kind].items()]
    )


def rows_of(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines with what is nested in columns of its own."""
    for line in lines:
        failure = line.get("failure", {})
        yield line | {"failure_code": failure.get("code"), "failure_message": failure.get("message")}


def batches_of(kind: JobKind, lines: Iterable[Line]) -> Iterator[pa.RecordBatch]:
    pa = load_package("pyarrow", "tables")
    schema, rows = schema_of(kind), rows_of(lines)
    while batch := _next_batch(rows):
        yield pa.RecordBatch.from_pylist(batch, schema=schema)


def _next_batch(rows: Iterator[Line]) -> list[Line]:
    batch, text = list[Line](), 0
    while len(batch) < ROWS_AT_ONCE and text < TEXT_AT_ONCE and (row := next(rows, None)) is not None:
        batch.append(row)
        text += len(row.get("caption") or row.get("prompt") or "")
    return batch


def write_parquet(file: IO[bytes], kind: JobKind, lines: Iterable[Line]) -> None:
    parquet = load_package("pyarrow.parquet", "tables")
    with parquet.ParquetWriter(file, schema_of(kind)) as writer:
        for batch in batches_of(kind, lines):
            writer.write_batch(batch)


def read_parquet(path: Path, kind: JobKind) -> Iterator[Line]:
    parquet = load_package("pyarrow.parquet", "tables")
    with parquet.ParquetFile(path) as file:
        if file.schema_arrow.names != list(COLUMNS[kind]):
            raise BadOutput(f"{path} is there and its columns are not those of a {kind} job; take another file")
        for batch in file.iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                code, message = row.pop("failure_code"), row.pop("failure_message")
                failure = {} if code is None else {"failure": {"code": code, "message": message}}
                yield {name: value for name, value in row.items() if value is not None} | failure
