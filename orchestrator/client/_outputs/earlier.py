"""Results that an output holds already: what is not asked for again, and what new results are added to."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from orchestrator.client._errors import BadOutput, NothingToSubmit
from orchestrator.client._lines import Line
from orchestrator.client._outputs.names import SidecarNames
from orchestrator.client._outputs.output import TABLES, WHOLE_FOLDERS, Existing, Form, Output
from orchestrator.client._outputs.tables import TABLE_OF
from orchestrator.client._sources import SourceItem
from orchestrator.domain.items import MAX_ID_LENGTH
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.urls import is_url

CHOICES = (
    "say skip (keep what is there and do the rest), overwrite, or for .txt sidecars append or prepend: "
    '`--existing skip`, existing="skip"; or take another place'
)


def earlier_lines(output: Output, kind: JobKind) -> Iterator[Line]:
    """The lines of a table, or of a folder's `results.jsonl`; none where it is not there. Raises BadOutput."""
    form, path = (output.form, output.path) if output.form in TABLES else (Form.jsonl, output.path / "results.jsonl")
    return TABLE_OF[form].read(path, kind) if path.is_file() else iter(())


def key_of(line: Line, kind: JobKind) -> int:
    """What an item is known by from one job to the next; a hash, as a million of them are held."""
    return hash(line["id"]) if kind is JobKind.caption else hash((line["id"], line.get("prompt")))


def has_result(line: Line) -> bool:
    return "failure" not in line


@dataclass(frozen=True)
class Merged:
    """A line to be written: its index counts on from what is there. `source_index` is None where it was there."""

    line: Line
    source_index: int | None


def merge(earlier: Callable[[], Iterator[Line]], new: Callable[[], Iterator[Line]], kind: JobKind) -> Iterator[Merged]:
    """Each item once, in the order in which they came: a result that is there stays, a failure gives way."""
    new_keys = {key_of(line, kind) for line in new()}
    kept, index = set[int](), -1
    for line in earlier():
        if has_result(line) or key_of(line, kind) not in new_keys:
            kept.add(key_of(line, kind))
            index = line["index"]
            yield Merged(line, None)
    for line in new():
        if key_of(line, kind) not in kept:
            index += 1
            yield Merged(line | {"index": index}, line["index"])


class Guard:
    """Looks at an output before a job for it is submitted.

    Args:
        output: None where nothing is to be looked at.
    """

    def __init__(self, kind: JobKind, output: Output | None) -> None:
        self._kind = kind
        self._output = output
        self._num_skipped = 0

    @classmethod
    def of(
        cls,
        kind: JobKind,
        out: str | Path | Output | None,
        existing: Existing | str | None,
        *,
        only_counts: bool = False,
    ) -> Guard:
        """Raises BadOutput where the output cannot be written, or holds results and nobody said what to do.

        Args:
            only_counts: nothing will be written, so that what is there is in nobody's way.
        """
        if out is None:
            if existing is not None:
                raise BadOutput(f"existing={existing!r} is about an output; give out= too")
            return cls(kind, None)
        output = out if isinstance(out, Output) else Output.of(out, existing=existing)
        output.check_for(kind)
        if output.existing is None and only_counts:
            return cls(kind, None)
        if output.existing is None:
            _require_nothing_there(output)
        return cls(kind, output)

    @property
    def skips(self) -> bool:
        return self._output is not None and self._output.existing is Existing.skip

    def wanted(self, items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        """The items to submit. Raises BadOutput where there is a sidecar for one and nobody said what to do."""
        output = self._output
        if output is None or output.existing not in (None, Existing.skip) or output.form in WHOLE_FOLDERS:
            yield from items
        elif output.form is Form.folder and self._kind is JobKind.caption:
            yield from self._without_sidecar(_with_ids(items), output)
        elif output.existing is Existing.skip:
            done = {key_of(line, self._kind) for line in earlier_lines(output, self._kind) if has_result(line)}
            for item in _with_ids(items):
                if isinstance(item.line, dict) and key_of(item.line, self._kind) in done:
                    self._num_skipped += 1
                else:
                    yield item
        else:
            yield from items

    def nothing_left(self) -> NothingToSubmit:
        """What to raise where there is no item to submit."""
        if self._num_skipped and self._output:
            told = f"there is nothing to do: each of {self._num_skipped} items has its result in {self._output.path}"
            return NothingToSubmit(told, done_already=True)
        return NothingToSubmit("there is nothing to submit: no image or prompt was found")

    def _without_sidecar(self, items: Iterator[SourceItem], output: Output) -> Iterator[SourceItem]:
        """The items for which the folder has no sidecar, by the names that this folder will give them."""
        earlier = [line["id"] for line in earlier_lines(output, self._kind)]
        with tempfile.TemporaryFile() as spool:
            first = next(items, None)
            items = chain([] if first is None else [first], items)
            absolute: Iterator[str] = iter(())
            if first is not None and _id(first).startswith("/"):  # whose names leave out what all have in common
                again = _spooled(items, spool)
                items, absolute = again(), (_id(item) for item in again())
            names = SidecarNames(chain(earlier, absolute), output.sidecar)
            yield from self._unless_there(items, names, earlier, output)

    def _unless_there(
        self, items: Iterator[SourceItem], names: SidecarNames, earlier: list[str], output: Output
    ) -> Iterator[SourceItem]:
        name_of = {hash(item_id): names.take(index, item_id) for index, item_id in enumerate(earlier)}
        for index, item in enumerate(items, len(earlier)):
            name = name_of.get(hash(_id(item))) or names.take(index, _id(item))
            if not (output.path / name).exists():
                yield item
            elif output.existing is Existing.skip:
                self._num_skipped += 1
            else:
                raise BadOutput(f"{output.path / name} is there already; {CHOICES}")


def _require_nothing_there(output: Output) -> None:
    path = output.path
    if output.form in WHOLE_FOLDERS:
        is_there = path.is_dir() and any(path.iterdir())
    else:
        is_there = path.exists() if output.form in TABLES else (path / "results.jsonl").exists()
    if is_there:
        raise BadOutput(f"{path} holds results already; {CHOICES}")


def _with_ids(items: Iterable[SourceItem]) -> Iterator[SourceItem]:
    """Items with the id that the whole source gives them, as it would be another one where some are left out."""
    for index, item in enumerate(items):
        if isinstance(item.line, dict) and "id" not in item.line:
            image = item.line.get("image")
            is_name = isinstance(image, str) and is_url(image) and len(image) <= MAX_ID_LENGTH
            item = SourceItem(item.line | {"id": image if is_name else str(index)}, item.files)
        yield item


def _id(item: SourceItem) -> str:
    return str(item.line["id"]) if isinstance(item.line, dict) else ""


def _spooled(items: Iterable[SourceItem], spool: IO[bytes]) -> Callable[[], Iterator[SourceItem]]:
    """Items on disk, to be gone through more than once."""
    for item in items:
        pickle.dump(item, spool)

    def again() -> Iterator[SourceItem]:
        spool.seek(0)
        while True:
            try:
                yield pickle.load(spool)  # noqa: S301 - our own, of a moment ago
            except EOFError:
                return

    return again
