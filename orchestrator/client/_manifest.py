"""What is about to be sent, on disk: the manifest of the items, and which file becomes which object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from orchestrator.client._sources import SourceItem


def write_manifest(items: Iterable[SourceItem], manifest: IO[bytes], files: IO[bytes]) -> None:
    """Write each item's line, and a line for each file; objects are numbered so that any file name will do."""
    number = 0
    for item in items:
        line = item.line
        if item.files and isinstance(line, dict):
            names = [f"images/{number + k:09d}{path.suffix.lower()}" for k, path in enumerate(item.files)]
            number += len(names)
            line = line | {"image": names[0] if len(names) == 1 else names}
            for name, path in zip(names, item.files, strict=True):
                files.write(json.dumps([name, str(path)]).encode() + b"\n")
        text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
        manifest.write(text.encode("utf-8", "replace") + b"\n")


def read_files(files: IO[bytes]) -> Iterator[tuple[str, Path]]:
    """Object names and the files that become them."""
    files.seek(0)
    for line in files:
        name, path = json.loads(line)
        yield name, Path(path)
