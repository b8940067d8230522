"""Tables: a row is an item. `.csv`, `.parquet`, a pandas DataFrame, a dataset of Hugging Face's `datasets`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.client._errors import BadSource
from orchestrator.client._sources.columns import Columns
from orchestrator.client._sources.items import SourceItem, failed
from orchestrator.client._sources.values import NoImage, files_of, plain
from orchestrator.domain.urls import is_url

SUFFIXES = (".csv", ".parquet")
ROWS_AT_ONCE = 64  # of a parquet file
Row = dict[str, Any]


class BadRow(Exception):
    """Why a row cannot be read, in words."""


class Table:
    """Rows, one after the other, of which only the columns wanted are read.

    pictures: the columns that hold pictures by their type.
    """

    name: str
    columns: list[str]
    folder: Path = Path()  # that names of files are relative to
    pictures: tuple[str, ...] = ()

    def rows(self, wanted: list[str]) -> Iterator[Row | BadRow]:
        raise NotImplementedError


def open_table(path: Path) -> Table:
    """Raises BadSource."""
    return CsvTable(path) if path.suffix.lower() == ".csv" else ParquetTable(path)


def is_table(source: object) -> bool:
    return _is_frame(source) or _is_dataset(source)


def find_table(source: object) -> Table | None:
    """The table of a DataFrame or a dataset; None for anything else. Raises BadSource."""
    if _is_frame(source):
        return FrameTable(source)
    return DatasetTable(source) if _is_dataset(source) else None


def _is_frame(source: object) -> bool:
    return _library(source) == "pandas" and hasattr(source, "itertuples") and hasattr(source, "columns")


def _is_dataset(source: object) -> bool:
    return _library(source) == "datasets" and hasattr(source, "cast_column")


def _library(source: object) -> str:
    return type(source).__module__.partition(".")[0]


def read_images(table: Table, told: Columns, prefix: str) -> Iterator[SourceItem]:
    """Items of a table's rows; the columns are looked at now. Raises BadSource.

    prefix: of an id that is the name of a file.
    """
    columns = told.of_images(table.name, table.columns, table.pictures)
    return _image_items(table, columns, prefix)


def _image_items(table: Table, columns: Columns, prefix: str) -> Iterator[SourceItem]:
    for number, row in enumerate(table.rows(columns.wanted())):
        if isinstance(row, BadRow):
            yield failed(None, f"{table.name}, row {number + 1}: {row}")
            continue
        image = row[columns.image or ""]
        line = line_of(row, columns)
        if "id" not in line and isinstance(image, str) and image and not is_url(image):
            line["id"] = prefix + image
        try:
            yield SourceItem(line, files_of(image, table.folder))
        except NoImage as error:
            yield failed(line.get("id"), f"{table.name}, row {number + 1}: the column {columns.image!r} {error}")


def line_of(row: Row, columns: Columns) -> Row:
    """Id, prompt and fields of a row."""
    line: Row = {}
    for name, column in (("id", columns.id), ("prompt", columns.prompt)):
        value = plain(row[column]) if column is not None else None
        if value is not None and value != "":
            line[name] = str(value)
    fields = {name: plain(row[name]) for name in sorted(columns.fields) if name in row}
    return line | ({"fields": fields} if fields else {})


class CsvTable(Table):
    """With names in its first line; UTF-8."""

    def __init__(self, path: Path) -> None:
        self._path, self.name, self.folder = path, str(path), path.parent
        with self._open() as file:
            try:
                self.columns = next(csv.reader(file), [])
            except csv.Error as error:
                raise BadSource(f"{path}: its first line cannot be read ({error})") from None

    def rows(self, wanted: list[str]) -> Iterator[Row | BadRow]:
        with self._open() as file:
            reader = csv.DictReader(file)
            while True:
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    yield BadRow(str(error))
                    continue
                if row is None:
                    return
                yield BadRow("it has more cells than the first line") if None in row else row

    def _open(self) -> Any:
        return self._path.open(encoding="utf-8-sig", errors="replace", newline="")


class ParquetTable(Table):
    """Needs pyarrow, the extra `tables`."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise BadSource(f"{path}: reading it needs pyarrow; pip install 'janus-batch[tables]'") from None
        self.name, self.folder = str(path), path.parent
        try:
            self._file = parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)  # else it keeps all of it
        except (OSError, ValueError) as error:
            raise BadSource(f"{path}: {error}") from error
        self.columns = list(self._file.schema_arrow.names)

    def rows(self, wanted: list[str]) -> Iterator[Row | BadRow]:
        try:
            for batch in self._file.iter_batches(ROWS_AT_ONCE, columns=[c for c in wanted if c in self.columns]):
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            yield BadRow(f"from here on the file cannot be read ({error})")


class FrameTable(Table):
    """A pandas DataFrame."""

    def __init__(self, frame: Any) -> None:
        self._frame, self.name = frame, "the DataFrame"
        self.columns = [str(column) for column in frame.columns]

    def rows(self, wanted: list[str]) -> Iterator[Row | BadRow]:
        for values in self._frame.itertuples(index=False, name=None):
            yield dict(zip(self.columns, values, strict=True))


class DatasetTable(Table):
    """A Dataset or an IterableDataset; its images are sent as the files they are, and not decoded here."""

    def __init__(self, dataset: Any) -> None:
        self.name = "the dataset"
        if isinstance(dataset, dict):
            raise BadSource(f"the dataset has splits; give one of them, such as dataset[{next(iter(dataset), '')!r}]")
        features = dataset.features or {}
        self._dataset = dataset
        self.columns = list(features) or list(next(iter(dataset), {}))
        self.pictures = tuple(name for name, kind in features.items() if type(kind).__name__ == "Image")
        for name in self.pictures:
            self._dataset = self._dataset.cast_column(name, type(features[name])(decode=False))

    def rows(self, wanted: list[str]) -> Iterator[Row | BadRow]:
        yield from self._dataset.select_columns([name for name in wanted if name in self.columns])
