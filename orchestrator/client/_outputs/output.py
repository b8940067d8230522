"""An output: where results are written, in which form, and what becomes of results that are there already."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from orchestrator.client._errors import BadOutput
from orchestrator.client._sources.braces import expand_braces
from orchestrator.domain.jobs import JobKind

E = TypeVar("E", bound=StrEnum)


class Form(StrEnum):
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    folder = "folder"
    webdataset = "webdataset"
    dataset = "dataset"


class Existing(StrEnum):
    """What to do where an item has its result in the output already."""

    skip = "skip"  # keep it, and add what is new
    overwrite = "overwrite"
    append = "append"  # to the text of a sidecar
    prepend = "prepend"


class Sidecar(StrEnum):
    """What stands beside a name in a folder of captions."""

    txt = "txt"
    json = "json"


ENDINGS = {".jsonl": Form.jsonl, ".csv": Form.csv, ".parquet": Form.parquet}
TABLES = frozenset(ENDINGS.values())
WHOLE_FOLDERS = frozenset((Form.webdataset, Form.dataset))  # which are ours alone, and replaced as a whole


@dataclass(frozen=True)
class Output:
    """Made by `Output.of`, which checks it."""

    path: Path
    form: Form
    existing: Existing | None = None
    sidecar: Sidecar = Sidecar.txt
    tars: tuple[Path, ...] = ()
    shard_items: int = 1000

    @classmethod
    def of(
        cls,
        path: str | Path,
        form: Form | str | None = None,
        *,
        existing: Existing | str | None = None,
        sidecar: Sidecar | str = Sidecar.txt,
        tars: Iterable[str | Path] = (),
        shard_items: int = 1000,
    ) -> Output:
        """As in `job.download`. Raises BadOutput for what cannot be written, whatever the job is."""
        output = cls(
            Path(path),
            _form_of(Path(path)) if form is None else _choice(Form, form, "form"),
            None if existing is None else _choice(Existing, existing, "existing"),
            _choice(Sidecar, sidecar, "sidecar"),
            tuple(tar for name in tars for tar in _matching(str(name))),
            shard_items,
        )
        output._check()
        return output

    def check_for(self, kind: JobKind) -> None:
        """Raises BadOutput for what a job of this kind does not have."""
        if self.existing in (Existing.append, Existing.prepend) and kind is JobKind.generate:
            raise BadOutput(f"{self.path}: images cannot be {self.existing}ed to; say skip or overwrite")
        if self.tars and kind is JobKind.generate:
            raise BadOutput(f"{self.path}: tars are copied with their captions; a generation job has none")

    def _check(self) -> None:
        to_text = self.existing in (Existing.append, Existing.prepend)
        if to_text and (self.form is not Form.folder or self.sidecar is not Sidecar.txt):
            raise BadOutput(
                f"{self.path}: only the .txt of a folder can be {self.existing}ed to; say skip or overwrite"
            )
        if self.existing is Existing.skip and self.form in WHOLE_FOLDERS:
            raise BadOutput(f"{self.path}: nothing can be added to a {self.form} folder; take a new one, or overwrite")
        if self.tars and self.form is not Form.webdataset:
            raise BadOutput(f"{self.path}: tars are copied into the form webdataset, not into {self.form}")
        if self.shard_items < 1:
            raise BadOutput(f"shard_items is {self.shard_items}; it must be 1 or more")
        if self.form not in TABLES and self.path.is_file():
            raise BadOutput(f"{self.path} is a file; the form {self.form} is written into a folder")
        if self.form in TABLES and self.path.is_dir():
            raise BadOutput(f"{self.path} is a folder; the form {self.form} is a file")


def _form_of(path: Path) -> Form:
    if path.suffix in ENDINGS and not path.is_dir():
        return ENDINGS[path.suffix]
    if path.suffix and not path.is_dir():
        raise BadOutput(
            f"{path}: results are written as {', '.join(ENDINGS)} or into a folder, not as {path.suffix}; the forms "
            "webdataset and dataset are folders too"
        )
    return Form.folder


def _matching(pattern: str) -> list[Path]:
    """Tars by a name, braces or a glob, in order."""
    found = [Path(path) for name in expand_braces(pattern) for path in sorted(glob.glob(name, recursive=True))]
    if not found:
        raise BadOutput(f"{pattern}: there is no such tar")
    return found


def _choice(choices: type[E], given: str, name: str) -> E:
    try:
        return choices(given)
    except ValueError:
        raise BadOutput(f"{name} is {given!r}; it must be one of {', '.join(choices)}") from None
