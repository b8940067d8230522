"""Drawn images: fetched many at once, and each compared with its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._errors import TransferFailed
from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._outputs.earlier import Merged, earlier_lines, merge
from orchestrator.client._outputs.output import Existing, Output
from orchestrator.client._steps import Emit, Steps, Stream, work
from orchestrator.client._transfers import URLS_AT_ONCE, drafted, in_groups, write_atomically
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.shards import image_file, image_name

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls

IMAGES_AT_ONCE = 64  # that are held in memory
MAX_LINES_AT_ONCE = 64


@dataclass(frozen=True)
class DrawnImage:
    """An image of a line: where its object is, and what its file is called here.

    Names are made here, from numbers: what a server calls a file does not choose where it is written.
    """

    name: str
    file: str
    sha256: str


def images_of(merged: Merged) -> Iterator[DrawnImage]:
    """The images of a line of this job; none of a line that was there before."""
    if merged.source_index is None:
        return
    for k, image in enumerate(merged.line.get("images", ())):
        name = image_name(image_file(merged.source_index, k), image["sha256"])
        yield DrawnImage(name, image_file(merged.line["index"], k), image["sha256"])


def write_images(job: JobCalls[Any], output: Output, lines: IO[bytes]) -> Steps[None]:
    """A folder of images and `results.jsonl`; an image that is there already is not fetched again."""
    with drafted(output.path / "results.jsonl") as results:
        groups = in_groups(_missing(output, lines, results), URLS_AT_ONCE)
        while group := (yield from work(partial(next, groups, None))):
            urls = yield from job.make_urls([image.name for image in group])
            each = list(zip(group, urls, strict=True))
            yield from work(partial(job.transfers.map, lambda pair: _save(job, output.path, *pair), each))


def lines_with_images(job: JobCalls[Any], lines: IO[bytes]) -> Stream[tuple[Line, list[bytes]], None]:
    """Lines of a generation job with the bytes of their images, some dozen in memory at a time."""
    groups = _line_groups(read_lines(lines))
    while group := (yield from work(partial(next, groups, None))):
        wanted = list(chain.from_iterable(images_of(Merged(line, line["index"])) for line in group))
        data = iter((yield from fetch_images(job, wanted)))
        for line in group:
            yield Emit((line, [next(data) for _ in line.get("images", ())]))


def fetch_images(job: JobCalls[Any], images: list[DrawnImage]) -> Steps[list[bytes]]:
    """The bytes of images, in their order."""
    found: dict[str, bytes] = {}
    for group in in_groups(images, URLS_AT_ONCE):
        urls = yield from job.make_urls([image.name for image in group])

        def fetch(pair: tuple[DrawnImage, str]) -> None:
            found[pair[0].name] = _fetch(job, *pair)

        yield from work(partial(job.transfers.map, fetch, list(zip(group, urls, strict=True))))
    return [found[image.name] for image in images]


def _missing(output: Output, lines: IO[bytes], results: IO[bytes]) -> Iterator[DrawnImage]:
    """Images to fetch; on the way every line is written, with the names that the images have here."""

    def earlier() -> Iterator[Line]:
        return earlier_lines(output, JobKind.generate) if output.existing is Existing.skip else iter(())

    for merged in merge(earlier, lambda: read_lines(lines), JobKind.generate):
        images = list(images_of(merged))
        line = merged.line
        if images:
            pairs = zip(line["images"], images, strict=True)
            line = line | {"images": [record | {"file": image.file} for record, image in pairs]}
        results.write(encode_line(line))
        yield from (image for image in images if not _has(output.path / image.file, image.sha256))


def _line_groups(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Lines that have no more than IMAGES_AT_ONCE images together, or one line that has more."""
    group, num_images = list[Line](), 0
    for line in lines:
        more = len(line.get("images", ()))
        if group and (num_images + more > IMAGES_AT_ONCE or len(group) >= MAX_LINES_AT_ONCE):
            yield group
            group, num_images = [], 0
        group.append(line)
        num_images += more
    if group:
        yield group


def _save(job: JobCalls[Any], folder: Path, image: DrawnImage, url: str) -> None:
    write_atomically(folder / image.file, [_fetch(job, image, url)])


def _fetch(job: JobCalls[Any], image: DrawnImage, url: str) -> bytes:
    data = job.transfers.get(url)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise TransferFailed(f"{image.name} has changed since it was made; run `janus jobs verify {job.id}`")
    return data


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
