"""What is to be drawn: prompts, and files of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator.client._errors import BadSource
from orchestrator.client._sources import tables
from orchestrator.client._sources.columns import Columns
from orchestrator.client._sources.images import object_or_text
from orchestrator.client._sources.items import SourceItem, failed
from orchestrator.domain.jobs import MAX_PROMPT_LENGTH
from orchestrator.domain.templates import FieldMissing, TextTooLong, name_fields, render, words_of


def read_prompt_sources(
    prompts: Iterable[str], source: Any = None, columns: Columns | None = None, template: str | None = None
) -> Iterator[SourceItem]:
    """Items of prompts given, and of a file or table: a line each, an object of a `.jsonl` each, a row each.

    template: what the prompt of a row is, with its cells in it. Raises BadSource.
    """
    given = (SourceItem({"prompt": prompt}) for prompt in prompts)
    columns = columns or Columns()
    if template is not None:
        columns = Columns(None, columns.id, columns.prompt, words_of(template))
    table = _find_table(source)
    if table is not None:
        return chain(given, _rows(table, columns.of_prompts(table.name, table.columns), template))
    if template is not None or columns.is_told:
        raise BadSource("a template and columns are for the rows of a table: give a .csv, a .parquet or a DataFrame")
    return given if source is None else chain(given, _lines(Path(source)))


def _find_table(source: Any) -> tables.Table | None:
    if not isinstance(source, str | Path):
        return tables.find_table(source)
    if not Path(source).is_file():
        raise BadSource(f"{source}: there is no such file")
    return tables.open_table(Path(source)) if Path(source).suffix.lower() in tables.SUFFIXES else None


def _lines(path: Path) -> Iterator[SourceItem]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield SourceItem(object_or_text(line) if path.suffix == ".jsonl" else {"prompt": line.strip()})


def _rows(table: tables.Table, columns: Columns, template: str | None) -> Iterator[SourceItem]:
    for number, row in enumerate(table.rows(columns.wanted())):
        if isinstance(row, tables.BadRow):
            yield failed(None, f"{table.name}, row {number + 1}: {row}")
            continue
        line = tables.line_of(row, columns)
        fields = line.pop("fields", {})
        if template is None:
            yield SourceItem({"prompt": ""} | line)
            continue
        try:
            known = name_fields(line.get("id", str(number))) | fields
            yield SourceItem(line | {"prompt": render(template, known, max_length=MAX_PROMPT_LENGTH)})
        except (FieldMissing, TextTooLong) as error:
            yield failed(line.get("id"), f"{table.name}, row {number + 1}: {error}")
