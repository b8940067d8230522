"""Results as files: `.jsonl` as they are, `.csv` as a table, a folder as captions beside names or images."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._edits import with_edits
from orchestrator.client._errors import BadSource, TransferFailed
from orchestrator.client._parts import finished_results
from orchestrator.client._sidecars import SidecarNames
from orchestrator.client._transfers import URLS_AT_ONCE, drafted, in_groups, write_atomically
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.shards import image_file, image_name

if TYPE_CHECKING:
    from orchestrator.client._job import Job

FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the full-width forms too
CELL_STARTS = tuple("\t\r\n")  # a spreadsheet may drop these, or begin a new cell after them
CSV_FIELDS = {
    JobKind.caption: (
        "index",
        "id",
        "caption",
        "num_tokens",
        "finish_reason",
        "seed",
        "failure_code",
        "failure_message",
    ),
    JobKind.generate: ("index", "id", "prompt", "files", "failure_code", "failure_message"),
}


def check_out(path: Path) -> None:
    """Refuse a form that cannot be written, before anything is submitted. Raises BadSource."""
    if path.suffix not in ("", ".jsonl", ".csv") and not path.is_dir():
        raise BadSource(f"{path}: results are written as .jsonl, .csv or into a folder, not as {path.suffix}")


def download_results(job: Job, path: Path, *, edited: bool = False) -> Path:
    """Write what is finished; a file is replaced as a whole.

    Raises TransferFailed: an object cannot be read, or is not as it was made.
    """
    check_out(path)
    if not job.ended:
        job.refresh()
    if path.suffix == ".jsonl":
        with drafted(path) as lines:
            _write_lines(job, lines, edited)
    elif path.suffix == ".csv":
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as lines:
            _write_lines(job, lines, edited)
            write_atomically(path, _as_csv(job.view.kind, read_lines(lines)))
    else:
        with drafted(path / "results.jsonl") as lines:
            _write_lines(job, lines, edited)
            if job.view.kind is JobKind.generate:
                _download_images(job, path, lines)
            else:
                _write_sidecars(path, lines)
    return path


def read_lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The results in a file, one at a time, from its beginning."""
    file.seek(0)
    for line in file:
        yield json.loads(line)


def encode_result(result: dict[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


def _write_lines(job: Job, file: IO[bytes], edited: bool) -> None:
    """The results as they were made, or with their edits once they were compared with the manifest."""
    if not edited:
        _write_results(job, file)
        return
    with tempfile.TemporaryFile() as results:
        _write_results(job, results)
        for result in with_edits(job, read_lines(results)):
            file.write(encode_result(result))


def _write_results(job: Job, file: IO[bytes]) -> None:
    """The merged object where the job has ended with one, checked against the manifest; else the parts so far."""
    if not (job.ended and job.view.manifest_sha256):
        for result in finished_results(job, follow=False):
            file.write(encode_result(result))
        return
    data = job.fetch(job.urls(["manifest.json"])[0])
    if hashlib.sha256(data).hexdigest() != job.view.manifest_sha256:
        raise _changed(job, "manifest.json")
    recorded = json.loads(data)["objects"]["results.jsonl"]["sha256"]
    if job.transfers.get_into(job.urls(["results.jsonl"])[0], file) != recorded:
        raise _changed(job, "results.jsonl")


def _changed(job: Job, name: str) -> TransferFailed:
    return TransferFailed(f"{name} has changed since it was made; run `janus jobs verify {job.id}`")


def _download_images(job: Job, folder: Path, lines: IO[bytes]) -> None:
    """Every image, unless a file with its digest is there already; each is checked against its digest."""
    # Names are made here, from numbers: what a server calls a file does not choose where it is written.
    wanted = (
        image | {"file": image_file(int(result["index"]), k)}
        for result in read_lines(lines)
        for k, image in enumerate(result.get("images", ()))
    )
    missing = (image for image in wanted if not _has(folder / image["file"], image["sha256"]))
    for group in in_groups(missing, URLS_AT_ONCE):
        urls = job.urls([image_name(image["file"], image["sha256"]) for image in group])
        job.transfers.map(lambda pair: _save_image(job, folder, *pair), list(zip(group, urls, strict=True)))


def _save_image(job: Job, folder: Path, image: dict[str, Any], url: str) -> None:
    data = job.fetch(url)
    if hashlib.sha256(data).hexdigest() != image["sha256"]:
        raise _changed(job, image["file"])
    write_atomically(folder / image["file"], [data])


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _write_sidecars(folder: Path, lines: IO[bytes]) -> None:
    """A `.txt` for each caption, named after its item's id."""
    names = SidecarNames(result["id"] for result in read_lines(lines))
    for result in read_lines(lines):
        name = names.take(result["index"], result["id"])  # failures too: what stands beside them is not theirs
        if "caption" in result:
            write_atomically(folder / name, [result["caption"].encode() + b"\n"])


def _as_csv(kind: JobKind, results: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    fields = CSV_FIELDS[kind]
    yield _csv_row(fields)
    for result in results:
        failure = result.get("failure", {})
        row = result | {
            "files": " ".join(image["file"] for image in result.get("images", ())),
            "failure_code": failure.get("code", ""),
            "failure_message": failure.get("message", ""),
        }
        yield _csv_row(_defused(row.get(field, "")) for field in fields)


def _csv_row(values: Iterable[Any]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(values)
    return buffer.getvalue().encode()


def _defused(value: Any) -> Any:
    """A caption that begins like a formula must not run in a spreadsheet."""
    if not isinstance(value, str) or not value:
        return value
    return f"'{value}" if value[0] in CELL_STARTS or value.strip()[:1] in FORMULA_STARTS else value
