"""A user's own pictures with captions, from a file of JSON lines such as `janus caption` writes.

{"id": "a.jpg", "caption": "…"}                          other fields are not looked at
{"id": "7", "image": "a.jpg", "caption": "…"}            `image`, where there is one, and not `id` names the picture
{"id": "b.jpg", "failure": {…}}                          left out, as every line without a caption
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from janus_core.errors import DataInvalid
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings, prepare
from janus_core.training.batches import MixedBatch, RowMaker, TextRow, collate_understanding
from janus_core.training.presets import Phase

_MAX_NAMED = 5
_NUM_READERS = 8


@dataclass(frozen=True)
class Pair:
    image: Path
    caption: str


def read_pairs(data: Path, images: Path | None) -> list[Pair]:
    """The pairs of a file, in its order.

    Args:
        images: the folder that names are relative to; None is the folder of the file.
    Raises DataInvalid: not JSON lines, without a caption, or naming pictures that are not there; says which.
    """
    try:
        lines = data.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataInvalid(f"{data} cannot be read: {error}") from error
    read = [_read_line(line, f"{data}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    folder = data.parent if images is None else images
    pairs = [Pair(folder / name, caption) for name, caption in filter(None, read)]
    if not pairs:
        raise DataInvalid(f"{data} has no line with a caption")
    absent = [str(pair.image) for pair in pairs if not pair.image.is_file()]
    if absent:
        some = ", ".join(absent[:_MAX_NAMED]) + (" …" if len(absent) > _MAX_NAMED else "")
        raise DataInvalid(f"{len(absent)} of {len(pairs)} pictures are not there: {some}. Say where with --images.")
    return pairs


def _read_line(line: str, place: str) -> tuple[str, str] | None:
    """Name and caption, or None of a line that has no caption."""
    try:
        entry = json.loads(line)
        name, caption = entry["image" if "image" in entry else "id"], entry.get("caption")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataInvalid(f'{place} is no line like {{"id": "a.jpg", "caption": "…"}}: {told}') from error
    if not isinstance(caption, str) or not caption.strip():
        return None
    if not isinstance(name, str):
        raise DataInvalid(f"{place}: the picture is {json.dumps(name)}; one file name is expected")
    if chat.IMAGE in caption:
        raise DataInvalid(f"{place}: a caption cannot hold {chat.IMAGE}; take it out")
    return name, caption.strip()


class CaptionPairs:
    """Every pair once an epoch, each epoch in its own order. The next pair stands in for a picture that is no image."""

    def __init__(
        self,
        pairs: list[Pair],
        prompt: str,
        rows: RowMaker,
        images: ImageSettings,
        seed: int,
        phase: Phase,
        max_tokens: int,
    ) -> None:
        """max_tokens: of a row; a caption that is longer with its prompt is cut."""
        self._pairs, self._prompt, self._rows, self._images = pairs, prompt, rows, images
        self._seed, self._size, self._max_tokens = seed, phase.batch_size, max_tokens
        self._unreadable: set[Path] = set()

    def batch(self, step: int, process: int, num_processes: int) -> MixedBatch:
        first = step * self._size
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            read = list(pool.map(self._read, range(first + process, first + self._size, num_processes)))
        rows = [self._row(caption) for caption, _ in read]
        return MixedBatch(understanding=collate_understanding(rows, [pixels for _, pixels in read]))

    def _row(self, caption: str) -> TextRow:
        row = self._rows.understanding(self._prompt, caption)
        return TextRow(row.ids[: self._max_tokens], row.first_target)

    def _read(self, place: int) -> tuple[str, NDArray[np.float32]]:
        for later in range(len(self._pairs)):
            pair = self._at(place + later)
            try:
                with Image.open(pair.image) as image:
                    return pair.caption, prepare(image, self._images)
            except Exception as error:  # whatever Pillow raises
                if pair.image not in self._unreadable:
                    self._unreadable.add(pair.image)
                    print(f"left out: {pair.image} cannot be read: {error}", flush=True)  # noqa: T201
        raise DataInvalid(f"none of the {len(self._pairs)} pictures can be read")

    def _at(self, place: int) -> Pair:
        epoch, index = divmod(place, len(self._pairs))
        return self._pairs[_order(self._seed, epoch, len(self._pairs))[index]]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order
