"""What a job made, as pictures to look at: a contact sheet, drawn here from what was sent or made."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.client._lines import Line
from orchestrator.client._outputs.columns import load_package
from orchestrator.client._outputs.earlier import Merged
from orchestrator.client._outputs.images import fetch_images, images_of
from orchestrator.client._parts import finished_results
from orchestrator.client._sources import bucket_urls, read_image_sources
from orchestrator.client._sources.items import File, Region
from orchestrator.client._steps import Emit, Steps, Stream, drain, work
from orchestrator.domain.jobs import JobKind

if TYPE_CHECKING:
    from PIL import Image

    from orchestrator.client._job import JobCalls

MAX_TILES = 120  # of one sheet
THUMBNAIL_PIXELS = 448  # of a picture's longer side, here and in memory
Pictures = dict[str, "Image.Image"]
"""Small pictures by their item's id."""
Labelled = tuple["Image.Image | None", str]
"""A picture, where there is one, and the words below it."""


def draw_sheet(job: JobCalls[Any], path: Path, sources: Any = None) -> Steps[Path]:
    """The first results of a job as a `.jpg`. Raises PackageMissing, TransferFailed."""
    load_package("PIL.Image", "pictures")
    lines = list[Line]()
    yield from drain(first_lines(job, MAX_TILES), lines.append)
    if job.view.kind is JobKind.generate:
        tiles = yield from drawn_tiles(job, lines)
    else:
        known = {} if sources is None else (yield from work(partial(pictures_of, sources, _ids(lines))))
        tiles = [(known.get(line["id"]), words_of(line)) for line in lines]
    yield from work(partial(save_sheet, path, f"{job.view.name} ({job.id})", tiles, f"{len(tiles)} results"))
    return path


def first_lines(job: JobCalls[Any], limit: int) -> Stream[Line, None]:
    """Result lines that are there, up to so many."""
    stream, left = finished_results(job, lambda line: line, follow=False), limit
    answer: Any = None
    while left:
        try:
            step = stream.send(answer)
        except StopIteration:
            return
        answer = yield step
        left -= isinstance(step, Emit)
    stream.close()


def drawn_tiles(job: JobCalls[Any], lines: Sequence[Line]) -> Steps[list[Labelled]]:
    """The first picture of each line, its id and its prompt: of a sweep the id says what was swept."""
    first = [next(images_of(Merged(line, line["index"])), None) for line in lines]
    data = iter((yield from fetch_images(job, [image for image in first if image is not None])))
    tiles = []
    for line, image in zip(lines, first, strict=True):
        picture = None if image is None else _small(io.BytesIO(next(data)))
        tiles.append((picture, f"{line['id']}: {words_of(line)}"))
    return tiles


def save_sheet(path: Path, title: str, tiles: Sequence[Labelled], heading: str) -> None:
    from orchestrator.contact_sheet import Section, Tile, draw_contact_sheet

    blank = load_package("PIL.Image", "pictures").new("RGB", (8, 8), (225, 225, 222))
    section = Section(heading, [Tile(picture or blank, text) for picture, text in tiles])
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(title, [section]).save(path, "JPEG", quality=88)


def pictures_of(sources: Any, ids: Collection[str]) -> Pictures:
    """Small pictures of those items, read from where they came from; without those that cannot be."""
    return dict(each_picture(sources, ids))


def each_picture(sources: Any, ids: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
    """One after the other, with its item's id, so that no more than one is held."""
    if bucket_urls(sources):
        return
    num_found = 0
    for index, item in enumerate(read_image_sources(sources)):
        if num_found == len(ids):
            return
        item_id = str(item.line.get("id", index)) if isinstance(item.line, dict) else str(index)
        if item_id in ids and item.files and (picture := small_picture(item.files[0])) is not None:
            num_found += 1
            yield item_id, picture


def words_of(line: Line) -> str:
    """What a line says, to people."""
    failure = line.get("failure")
    return str(failure["code"] if failure else line.get("caption", line.get("prompt", "")))


def _ids(lines: Sequence[Line]) -> frozenset[str]:
    return frozenset(line["id"] for line in lines)


def small_picture(file: File) -> Image.Image | None:
    """An image to look at, no larger than a sheet needs; None where it cannot be read here."""
    if isinstance(file, str):
        return None  # a URL, that the server fetched
    try:
        return _small(io.BytesIO(_bytes_of(file)))
    except Exception:  # Pillow raises nearly anything; the item has its failure
        return None


def _bytes_of(file: Path | Region | bytes) -> bytes:
    if isinstance(file, bytes):
        return file
    if isinstance(file, Path):
        return file.read_bytes()
    with file.path.open("rb") as whole:
        whole.seek(file.offset)
        return whole.read(file.num_bytes)


def _small(data: io.BytesIO) -> Image.Image:
    picture: Image.Image = load_package("PIL.Image", "pictures").open(data)
    picture.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return picture.convert("RGB")
