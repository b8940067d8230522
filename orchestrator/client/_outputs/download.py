"""Results from the store to an output: the lines first, checked, then the form that was asked for."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._edits import write_edited
from orchestrator.client._errors import TransferFailed
from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._outputs.captions import write_captions
from orchestrator.client._outputs.dataset import (
    dataset_output,
    load_folder,
    temporary_folder,
    write_dataset_folder,
    write_frame_of,
)
from orchestrator.client._outputs.earlier import earlier_lines, merge
from orchestrator.client._outputs.images import write_images
from orchestrator.client._outputs.output import TABLES, Existing, Form, Output
from orchestrator.client._outputs.tables import TABLE_OF
from orchestrator.client._outputs.tars import write_tars
from orchestrator.client._parts import finished_results
from orchestrator.client._steps import Steps, drain, work
from orchestrator.client._transfers import drafted
from orchestrator.domain.jobs import JobKind

if TYPE_CHECKING:
    import datasets
    import pandas

    from orchestrator.client._job import JobCalls


def download_results(job: JobCalls[Any], output: Output, *, edited: bool = False) -> Steps[Path]:
    """Write what is finished, or what people made of it.

    Raises BadOutput, PackageMissing, TransferFailed; then nothing half written is left.
    """
    output.check_for(job.view.kind)
    if not job.ended:
        yield from job.look()
    with _spool(output.path.parent) as lines, _spool(output.path.parent) as made:
        yield from _write_lines(job, made if edited else lines)
        if edited:
            yield from write_edited(job, made, lines)
        if output.form in TABLES:
            yield from work(partial(_write_table, job.view.kind, output, lines))
        elif output.form is Form.webdataset:
            yield from write_tars(job, output, lines)
        elif output.form is Form.dataset:
            yield from write_dataset_folder(job, output, lines)
        elif job.view.kind is JobKind.caption:
            yield from work(partial(write_captions, output, lines))
        else:
            yield from write_images(job, output, lines)
    return output.path


def write_frame(job: JobCalls[Any]) -> Steps[pandas.DataFrame]:
    """What is finished, in memory."""
    if not job.ended:
        yield from job.look()
    with tempfile.TemporaryFile() as lines:
        yield from _write_lines(job, lines)
        return (yield from work(partial(write_frame_of, job.view.kind, lines)))


def write_dataset(job: JobCalls[Any], folder: Path | None) -> Steps[datasets.Dataset]:
    """What is finished, on disk in `folder`, or in one that goes when this process does."""
    path = yield from download_results(job, dataset_output(folder or temporary_folder()))
    loaded: datasets.Dataset = yield from work(partial(load_folder, path))
    return loaded


@contextmanager
def _spool(folder: Path) -> Iterator[IO[bytes]]:
    """A file for lines, on the disk that the output is on."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as lines:
        yield lines


def _write_table(kind: JobKind, output: Output, lines: IO[bytes]) -> None:
    def earlier() -> Iterator[Line]:
        return earlier_lines(output, kind)

    table = TABLE_OF[output.form]
    with drafted(output.path) as file:
        if output.existing is Existing.skip:
            merged = merge(earlier, lambda: read_lines(lines), kind)
            table.write(file, kind, (each.line for each in merged))
        else:
            table.write(file, kind, read_lines(lines))


def _write_lines(job: JobCalls[Any], file: IO[bytes]) -> Steps[None]:
    """The merged object where the job has ended with one, checked against the manifest; else the parts so far."""
    if not (job.ended and job.view.manifest_sha256):
        yield from drain(finished_results(job, encode_line, follow=False), file.write)
        return
    urls = yield from job.make_urls(["manifest.json", "results.jsonl"])
    data = yield from work(partial(job.transfers.get, urls[0]))
    if hashlib.sha256(data).hexdigest() != job.view.manifest_sha256:
        raise _changed(job, "manifest.json")
    recorded = json.loads(data)["objects"]["results.jsonl"]["sha256"]
    if (yield from work(partial(job.transfers.get_into, urls[1], file))) != recorded:
        raise _changed(job, "results.jsonl")


def _changed(job: JobCalls[Any], name: str) -> TransferFailed:
    return TransferFailed(f"{name} has changed since it was made; run `janus jobs verify {job.id}`")
