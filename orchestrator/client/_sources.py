"""What people have: files, folders, globs, manifests; as a stream of items with the files they need."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.client._errors import BadSource
from orchestrator.domain.items import IMAGE_SUFFIXES
from orchestrator.domain.urls import is_url


@dataclass(frozen=True)
class SourceItem:
    """A manifest line to be, and what its image names stand for: local files, or URLs, as text."""

    line: dict[str, Any] | str  # text where the line is not a JSON object: the server makes it that item's failure
    files: Sequence[Path | str] = field(default=())


def read_image_sources(sources: Sequence[str | Path]) -> Iterator[SourceItem]:
    """Items of files, folders, globs and `.jsonl` manifests, in a stable order.

    An id is the name of one file, a path relative to one folder or to the fixed part of one absolute glob; of several
    sources it is the path as given, so that files of the same name stay apart. Raises BadSource.
    """
    for source in sources:
        yield from _read_image_source(str(source), alone=len(sources) == 1)


def _read_image_source(text: str, *, alone: bool) -> Iterator[SourceItem]:
    path = Path(text)
    if text.startswith("s3://") or path.suffix in (".csv", ".parquet", ".tar"):
        raise BadSource(
            f"{text}: this kind of source is not read yet; give images, folders, globs or a .jsonl manifest"
        )
    if path.is_dir():
        yield from _items(_images_below(path), path if alone else None)
    elif path.suffix == ".jsonl" and path.is_file():
        yield from _image_manifest(path, alone=alone)
    elif path.is_file():
        yield from _items([path], path.parent if alone else None)
    elif any(mark in text for mark in "*?["):
        yield from _items(_matching(text), _fixed_part(path) if alone and path.is_absolute() else None)
    else:
        raise BadSource(f"{text}: there is no such file or folder")


def read_prompt_sources(prompts: Iterable[str], file: str | Path | None) -> Iterator[dict[str, Any] | str]:
    """Items of prompts given, and of a file: a prompt a line, or in a `.jsonl` an object a line. Raises BadSource."""
    for prompt in prompts:
        yield {"prompt": prompt}
    if file is None:
        return
    path = Path(file)
    if not path.is_file():
        raise BadSource(f"{path}: there is no such file")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip():
                yield _object_or_text(line) if path.suffix == ".jsonl" else {"prompt": line.strip()}


def _items(paths: Iterable[Path], base: Path | None) -> Iterator[SourceItem]:
    for path in paths:
        yield SourceItem({"id": (path if base is None else path.relative_to(base)).as_posix()}, [path])


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _matching(pattern: str) -> list[Path]:
    found = [Path(path) for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    if not found:
        raise BadSource(f"{pattern}: nothing matches")
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder of a pattern above its first mark: `/data/*/a-?.jpg` -> `/data`."""
    return next(folder for folder in pattern.parents if not any(mark in str(folder) for mark in "*?["))


def _image_manifest(manifest: Path, *, alone: bool) -> Iterator[SourceItem]:
    """Lines as they are; image names that are no URLs are relative to the manifest's folder."""
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            if not text.strip():
                continue
            line = _object_or_text(text)
            names = line.get("image") if isinstance(line, dict) else None
            names = names if isinstance(names, list) else [names]
            if isinstance(line, dict) and names and all(isinstance(name, str) and name for name in names):
                if "id" not in line and len(names) == 1 and not is_url(names[0]):
                    line["id"] = names[0] if alone else (manifest.parent / names[0]).as_posix()
                yield SourceItem(line, [name if is_url(name) else manifest.parent / name for name in names])
            else:
                yield SourceItem(line)


def _object_or_text(line: str) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except ValueError:
        return line.strip()
    return value if isinstance(value, dict) else line.strip()
