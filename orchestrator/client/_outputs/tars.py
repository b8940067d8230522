"""WebDataset: tars of samples, where the files of a sample are neighbours and share a name up to its first dot."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Self

from orchestrator.client._errors import BadOutput
from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._outputs.images import lines_with_images
from orchestrator.client._outputs.output import Output
from orchestrator.client._outputs.whole_folders import drafted_folder
from orchestrator.client._steps import Steps, drain, work
from orchestrator.domain.jobs import JobKind
from orchestrator.domain.names import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls

COPY_BYTES = 2**20


def write_tars(job: JobCalls[Any], output: Output, lines: IO[bytes]) -> Steps[None]:
    """Samples of what has a result; `failures.jsonl` says what has none, and why."""
    with drafted_folder(output) as folder:
        if output.tars:
            yield from work(partial(_copy_tars, output, lines, folder))
        elif job.view.kind is JobKind.caption:
            yield from work(partial(_write_captions, output, lines, folder))
        else:
            with Shards(folder, output.shard_items) as shards:
                yield from drain(lines_with_images(job, lines), lambda drawn: _add_images(shards, *drawn))
        yield from work(partial(_write_failures, lines, folder))


class Shards:
    """Tars of so many items each, numbered from 0 without gaps; the same items make the same bytes."""

    def __init__(self, folder: Path, items_each: int) -> None:
        self._folder = folder
        self._items_each = items_each
        self._num_items = 0
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def begin_item(self) -> tarfile.TarFile:
        """The tar that the next item goes into."""
        if self._num_items % self._items_each == 0:
            if self._tar is not None:
                self._tar.close()
            self._tar = tarfile.TarFile(self._folder / f"{self._num_items // self._items_each:05d}.tar", "w")
        self._num_items += 1
        assert self._tar is not None
        return self._tar


def _write_captions(output: Output, lines: IO[bytes], folder: Path) -> None:
    with Shards(folder, output.shard_items) as shards:
        for line in read_lines(lines):
            if "caption" in line:
                tar, key = shards.begin_item(), f"{line['index']:09d}"
                _add(tar, f"{key}.txt", line["caption"].encode())
                _add(tar, f"{key}.json", encode_line(line))


def _add_images(shards: Shards, line: Line, images: list[bytes]) -> None:
    """A sample for each image: the image, its prompt, and its line with this image alone."""
    tar = shards.begin_item() if images else None
    for k, (record, data) in enumerate(zip(line.get("images", ()), images, strict=True)):
        assert tar is not None
        key = f"{line['index']:09d}-{k}"
        _add(tar, f"{key}.png", data)
        _add(tar, f"{key}.txt", line["prompt"].encode())
        _add(tar, f"{key}.json", encode_line(line | {"images": [record]}))


def _copy_tars(output: Output, lines: IO[bytes], folder: Path) -> None:
    """The captioned tars, each under its name, with the samples that have a caption.

    Captions go into `.txt` and lines into `.janus.json`; a sample's own `.txt` becomes `.original.txt`.
    """
    names = [tar.name for tar in output.tars]
    if len(set(names)) < len(names):
        raise BadOutput("two of the tars have the same name; write them into two folders")
    find = _finder(lines)
    num_found = 0
    for path in output.tars:
        with tarfile.open(path) as source, tarfile.open(folder / path.name, "w") as target:
            for key, members in groupby((m for m in source if m.isfile()), lambda member: _sample_key(member.name)):
                sample = list(members)
                line = next((found for member in sample if (found := find(path, member.name))), None)
                if line is not None:
                    num_found += 1
                    _copy_sample(source, target, key, sample, line)
    if not num_found and any("caption" in line for line in read_lines(lines)):
        raise BadOutput(
            f"no sample of {', '.join(names[:3])} is an item of this job; give the tars that were captioned"
        )


def _finder(lines: IO[bytes]) -> Callable[[Path, str], Line | None]:
    """Finds the line with a caption of an image in a tar; where it stands is held in memory, not what it says."""
    place_of: dict[int, int] = {}
    lines.seek(0)
    place = 0
    for text in lines:
        line = json.loads(text)
        if "caption" in line:
            place_of[hash(line["id"])] = place
        place += len(text)

    def find(tar: Path, member: str) -> Line | None:
        if not member.lower().endswith(IMAGE_SUFFIXES):
            return None
        for item_id in _ids_of(tar, member):
            if (at := place_of.get(hash(item_id))) is not None:
                lines.seek(at)
                line: Line = json.loads(lines.readline())
                return line
        return None

    return find


def _ids_of(tar: Path, member: str) -> Iterator[str]:
    """How an image of a tar may be called: alone, or of several tars with the tar's name or path in front."""
    parts = tar.as_posix().split("/")
    yield member
    yield from ("/".join([*parts[first:], member]) for first in range(len(parts) - 1, -1, -1))


def _sample_key(member: str) -> str:
    path = PurePosixPath(member)
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _copy_sample(
    source: tarfile.TarFile, target: tarfile.TarFile, key: str, sample: Iterable[tarfile.TarInfo], line: Line
) -> None:
    for member in sample:
        if member.name == f"{key}.janus.json":
            continue  # of an earlier time
        copied = tarfile.TarInfo(f"{key}.original.txt" if member.name == f"{key}.txt" else member.name)
        copied.size, copied.mtime, copied.mode = member.size, member.mtime, member.mode
        target.addfile(copied, source.extractfile(member))
    _add(target, f"{key}.txt", line["caption"].encode())
    _add(target, f"{key}.janus.json", encode_line(line))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of the year 1970 and nobody's, so that the same results are the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_failures(lines: IO[bytes], folder: Path) -> None:
    with (folder / "failures.jsonl").open("wb") as file:
        for line in read_lines(lines):
            if "failure" in line:
                file.write(encode_line(line))
