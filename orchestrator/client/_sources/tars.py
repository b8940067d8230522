"""WebDataset shards on this machine: their headers are read here, and their bytes are sent as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.client._errors import BadSource
from orchestrator.client._sources.columns import Columns
from orchestrator.client._sources.items import Region, SourceItem, failed
from orchestrator.client._sources.values import plain
from orchestrator.domain.samples import TarImage, read_samples

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def read_tar(path: Path, columns: Columns, prefix: str) -> Iterator[SourceItem]:
    """Items of the images in a tar; what it says beside them gives fields.

    prefix: of an id, which is the name in the tar.
    """
    wanted = columns.fields | {name for name in (columns.id, columns.prompt) if name}
    with path.open("rb") as file:
        tar_bytes = os.fstat(file.fileno()).st_size

        def read_at(offset: int, num_bytes: int) -> bytes:
            file.seek(offset)
            return file.read(num_bytes)

        for image in read_samples(read_at, tar_bytes, with_fields=bool(wanted)):
            if image.trouble:
                rest = image.name or f"from byte {image.offset} on"
                yield failed(f"{prefix}{rest}", f"{path}: {image.trouble}")
            else:
                line = {"id": prefix + image.name} | _told(image, columns)
                yield SourceItem(line, [Region(path, image.offset, image.num_bytes, tar_bytes)])


def refuse_compressed(path: Path) -> None:
    """Raises BadSource."""
    if path.name.lower().endswith(COMPRESSED):
        raise BadSource(f"{path}: parts of a compressed tar cannot be read; unpack it to a .tar")


def _told(image: TarImage, columns: Columns) -> dict[str, Any]:
    told = {name: plain(image.fields[column]) for name, column in (("id", columns.id), ("prompt", columns.prompt))
            if column and image.fields.get(column) not in (None, "")}  # fmt: skip
    fields = {name: image.fields[name] for name in sorted(columns.fields) if name in image.fields}
    return {name: str(value) for name, value in told.items()} | ({"fields": fields} if fields else {})
