"""What is about to be sent, on disk: the manifest of the items, and which files become which objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from orchestrator.client._bundles import Packer
from orchestrator.client._sources import SourceItem


def write_manifest(items: Iterable[SourceItem], manifest: IO[bytes], objects: IO[bytes]) -> None:
    """Write each item's line, and note every object that its files go into; any file name will do, a URL stays one."""
    packer = Packer(objects)
    for item in items:
        line = item.line
        if item.files and isinstance(line, dict):
            places = [packer.place(file) if isinstance(file, Path) else file for file in item.files]
            line = line | {"image": places[0] if len(places) == 1 else places}
        text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
        manifest.write(text.encode("utf-8", "replace") + b"\n")
    packer.close()
