"""What is to be captioned, in whatever form people have it, as items in a stable order.

What is given as a list is looked at before the first item, so that a wrong name or column is told before anything is
sent. What is given as a stream is read as it comes.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from orchestrator.client._errors import BadSource
from orchestrator.client._sources import tables, tars
from orchestrator.client._sources.braces import expand_braces
from orchestrator.client._sources.columns import Columns
from orchestrator.client._sources.items import SourceItem, failed
from orchestrator.client._sources.values import NoImage, files_of, is_picture
from orchestrator.domain.names import IMAGE_SUFFIXES
from orchestrator.domain.places import SCHEME
from orchestrator.domain.urls import is_url

_MARKS = "*?["


def as_list(sources: Any) -> list[Any] | None:
    """The sources, one or several; None for a stream of them."""
    if isinstance(sources, str | Path | bytes) or is_picture(sources) or tables.is_table(sources):
        return [sources]
    return list(sources) if isinstance(sources, list | tuple) else None


def bucket_urls(sources: Any) -> list[str]:
    """The `s3://` URLs, where the sources are such, with their braces expanded. Raises BadSource for a mixture."""
    several = as_list(sources) or []
    urls = [each for each in several if isinstance(each, str) and each.startswith(SCHEME)]
    if urls and len(urls) < len(several):
        raise BadSource("s3:// cannot stand beside other sources in one job; make two jobs")
    return [name for url in urls for name in expand_braces(url)]


def name_sources(sources: Any) -> str:
    """For the name of a job."""
    several = as_list(sources) or [sources]
    return " ".join(str(each) if isinstance(each, str | Path) else type(each).__name__ for each in several)


def read_image_sources(sources: Any, columns: Columns | None = None) -> Iterator[SourceItem]:
    """Items of files, folders, globs, manifests, tables, tars, pictures, and lists or streams of them.

    An id is the name of one file, a path relative to one folder or to the fixed part of one absolute pattern; of
    several sources it is the path as given, so that files of the same name stay apart. Raises BadSource.
    """
    several, columns = as_list(sources), columns or Columns()
    if several is None:
        return (item for source in sources for item in _open(source, columns, alone=False))
    return chain.from_iterable([_open(source, columns, alone=len(several) == 1) for source in several])


def _open(source: Any, columns: Columns, *, alone: bool) -> Iterator[SourceItem]:
    """Looks at a source now, and reads it later."""
    if isinstance(source, str | Path):
        return _open_path(str(source), columns, alone=alone)
    table = tables.find_table(source)
    if table is not None:
        return tables.read_images(table, columns, "")
    try:
        return iter([SourceItem({}, files_of(source, Path()))])
    except NoImage as error:
        if not (is_picture(source) or isinstance(source, bytes)):
            raise BadSource(f"a {type(source).__name__} is no source of images") from None
        return iter([failed(None, f"the picture {error}")])


def _open_path(text: str, columns: Columns, *, alone: bool) -> Iterator[SourceItem]:
    path = Path(text)
    if text.startswith(SCHEME):
        raise BadSource(f"{text}: s3:// cannot stand beside other sources in one job; make two jobs")
    if path.is_dir():
        return _items(_images_below(path), path if alone else None)
    if path.is_file():
        return _open_file(path, columns, path.parent if alone else None, alone=alone)
    names = expand_braces(text)
    if len(names) > 1 or any(mark in text for mark in _MARKS):
        paths = [found for name in names for found in _matching(name)]
        base = _fixed_part(path) if alone and path.is_absolute() else None
        return chain.from_iterable([_open_file(each, columns, base, alone=False) for each in paths])
    raise BadSource(f"{text}: there is no such file or folder")


def _open_file(path: Path, columns: Columns, base: Path | None, *, alone: bool) -> Iterator[SourceItem]:
    """base: the folder that ids are relative to; None for paths as they are."""
    shown = (path if base is None else path.relative_to(base)).as_posix()
    suffix = path.suffix.lower()
    tars.refuse_compressed(path)
    if suffix == ".tar":
        return tars.read_tar(path, columns, "" if alone else f"{shown}/")
    folder = "" if alone else shown.rpartition("/")[0] + "/" if "/" in shown else ""
    if suffix in tables.SUFFIXES:
        return tables.read_images(tables.open_table(path), columns, folder)
    if suffix == ".jsonl":
        return _image_manifest(path, folder)
    return iter([SourceItem({"id": shown}, [path])])


def _items(paths: Iterable[Path], base: Path | None) -> Iterator[SourceItem]:
    for path in paths:
        yield SourceItem({"id": (path if base is None else path.relative_to(base)).as_posix()}, [path])


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _matching(pattern: str) -> Sequence[Path]:
    if Path(pattern).is_file():
        return [Path(pattern)]
    found = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    if not found:
        raise BadSource(f"{pattern}: nothing matches")
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder of a pattern above its first mark: `/data/*/a-?.jpg` -> `/data`."""
    return next(folder for folder in pattern.parents if not any(mark in str(folder) for mark in _MARKS + "{"))


def _image_manifest(manifest: Path, prefix: str) -> Iterator[SourceItem]:
    """Lines as they are; image names that are no URLs are relative to the manifest's folder."""
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            if not text.strip():
                continue
            line = object_or_text(text)
            names = line.get("image") if isinstance(line, dict) else None
            names = names if isinstance(names, list) else [names]
            if isinstance(line, dict) and names and all(isinstance(name, str) and name for name in names):
                if "id" not in line and len(names) == 1 and not is_url(names[0]):
                    line["id"] = prefix + names[0]
                yield SourceItem(line, [name if is_url(name) else manifest.parent / name for name in names])
            else:
                yield SourceItem(line)


def object_or_text(line: str) -> dict[str, Any] | str:
    """What a line of a manifest says; as text what is no JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line.strip()
    return value if isinstance(value, dict) else line.strip()
