"""Folders that are ours alone: made beside their place, and put there when they are whole."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.client._errors import BadOutput
from orchestrator.client._outputs.output import Existing, Form, Output

OUR_FILES = {
    Form.webdataset: ("*.tar", "failures.jsonl"),
    Form.dataset: ("*.arrow", "dataset_info.json", "state.json"),
}


@contextmanager
def drafted_folder(output: Output) -> Iterator[Path]:
    """An empty folder that takes the output's place when the block ends well, and vanishes when it does not.

    Raises BadOutput where the place is taken by something that is not to be replaced.
    """
    path = output.path
    _require_replaceable(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (path.with_name(f".{path.name}.{ending}") for ending in ("part", "old"))
    for left_over in (draft, old):
        shutil.rmtree(left_over, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _require_replaceable(output: Output) -> None:
    found = list(output.path.iterdir()) if output.path.is_dir() else []
    if found and output.existing is not Existing.overwrite:
        overwrite = '`--existing overwrite`, existing="overwrite"'
        raise BadOutput(f"{output.path} is not empty; take another folder, or say overwrite: {overwrite}")
    for entry in found:
        if not any(fnmatch.fnmatch(entry.name, pattern) for pattern in OUR_FILES[output.form]):
            raise BadOutput(f"{entry} is not of a {output.form} folder, so {output.path} is not replaced; take another")
    if output.path.resolve() in {tar.resolve().parent for tar in output.tars}:
        raise BadOutput(f"{output.path} holds the tars that were captioned; take another folder")
