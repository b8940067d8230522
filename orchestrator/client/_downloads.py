"""Results as files: `.jsonl` as they are, `.csv` as a table, a folder as captions beside names or images."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.client._errors import BadSource, TransferFailed
from orchestrator.client._transfers import URLS_AT_ONCE, in_groups, write_atomically
from orchestrator.domain.items import is_safe_name
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.shards import image_name

if TYPE_CHECKING:
    from orchestrator.client._job import Job

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


def download_results(job: Job, path: Path) -> Path:
    """Write what is finished; a file is replaced as a whole."""
    check_out(path)
    if path.suffix == ".jsonl":
        write_atomically(path, _result_bytes(job))
    elif path.suffix == ".csv":
        write_atomically(path, _as_csv(job.view.kind, _results(job)))
    else:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "results.jsonl", _result_bytes(job))
        if job.view.kind is JobKind.generate:
            _download_images(job, path)
        else:
            _write_sidecars(path, _results(job))
    return path


def encode_result(result: dict[str, Any]) -> bytes:
    return json.dumps(result, ensure_ascii=False).encode() + b"\n"


def _result_bytes(job: Job) -> Iterator[bytes]:
    """The merged object where the job has ended with one, else the parts so far."""
    if job.ended and job.view.manifest_sha256:
        yield job.fetch(job.urls(["results.jsonl"])[0])
        return
    yield from (encode_result(result) for result in finished_results(job))


def _results(job: Job) -> Iterator[dict[str, Any]]:
    for chunk in _result_bytes(job):
        for line in chunk.splitlines():
            yield json.loads(line)


def finished_results(job: Job) -> Iterator[dict[str, Any]]:
    """Lines of the shards that are finished now, without waiting for more."""
    index = 0
    while True:
        page = job.parts(from_index=index)
        for part in page.parts:
            for line in job.fetch(part.url).splitlines():
                result = json.loads(line)
                if part.first_index <= result["index"] < part.end_index:
                    yield result
        if page.complete or page.next_index == index:
            return
        index = page.next_index


def _download_images(job: Job, folder: Path) -> None:
    """Every image, unless a file with its digest is there already; each is checked against its digest."""
    wanted = (image for result in _results(job) for image in result.get("images", ()))
    missing = (image for image in wanted if not _has(folder / image["file"], image["sha256"]))
    for group in in_groups(missing, URLS_AT_ONCE):
        urls = job.urls([image_name(image["file"], image["sha256"]) for image in group])
        job.transfers.map(lambda pair: _save_image(job, folder, *pair), list(zip(group, urls, strict=True)))


def _save_image(job: Job, folder: Path, image: dict[str, Any], url: str) -> None:
    data = job.fetch(url)
    if hashlib.sha256(data).hexdigest() != image["sha256"]:
        raise TransferFailed(f"{image['file']} has changed since it was made; run `janus jobs verify {job.id}`")
    write_atomically(folder / image["file"], [data])


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _write_sidecars(folder: Path, results: Iterable[dict[str, Any]]) -> None:
    """`a/b.jpg` becomes `a/b.txt` below the folder; an id that is no safe name becomes its index."""
    for result in results:
        if "caption" not in result:
            continue
        name = result["id"] if is_safe_name(result["id"]) else f"{result['index']:09d}"
        path = folder / PurePosixPath(name).with_suffix(".txt")
        write_atomically(path, [result["caption"].encode() + b"\n"])


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
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
