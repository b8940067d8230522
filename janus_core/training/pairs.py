"""A user's own pictures with captions, from a file of JSON lines such as `janus caption` writes.

{"id": "a.jpg", "caption": "…"}       other fields are not looked at; lines without a caption are left out
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from janus_core.errors import DataInvalid
from janus_core.processing.images import ImageSettings, prepare
from janus_core.training.batches import MixedBatch, RowMaker, collate_understanding
from janus_core.training.presets import Phase

_MAX_NAMED = 5


@dataclass(frozen=True)
class Pair:
    image: Path
    caption: str


def read_pairs(data: Path, images: Path | None) -> list[Pair]:
    """The pairs of a file, in its order.

    Args:
        images: the folder that ids are relative to; None is the folder of the file.
    Raises DataInvalid: not JSON lines, without a caption, or naming pictures that are not there; says which.
    """
    folder = images or data.parent
    pairs = []
    try:
        lines = data.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataInvalid(f"{data} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, caption = entry["id"], entry.get("caption")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataInvalid(f'{data}:{number} is no line like {{"id": "a.jpg", "caption": "…"}}: {error}') from error
        if isinstance(caption, str) and caption.strip():
            pairs.append(Pair(folder / str(name), caption.strip()))
    absent = [str(pair.image) for pair in pairs if not pair.image.is_file()]
    if absent:
        some = ", ".join(absent[:_MAX_NAMED])
        raise DataInvalid(f"{len(absent)} of {len(pairs)} pictures are not there: {some}. Say where with --images.")
    if not pairs:
        raise DataInvalid(f"{data} has no line with a caption")
    return pairs


class CaptionPairs:
    """Every pair once an epoch, each epoch in its own order. The next pair stands in for a picture that is no image."""

    def __init__(
        self, pairs: list[Pair], question: str, rows: RowMaker, images: ImageSettings, seed: int, phase: Phase
    ) -> None:
        self._pairs, self._question, self._rows, self._images = pairs, question, rows, images
        self._seed, self._size = seed, phase.batch_size
        self._unreadable: set[Path] = set()

    def batch(self, step: int, process: int, num_processes: int) -> MixedBatch:
        first = step * self._size
        read = [self._read(place) for place in range(first + process, first + self._size, num_processes)]
        rows = [self._rows.understanding(self._question, caption) for caption, _ in read]
        return MixedBatch(understanding=collate_understanding(rows, [pixels for _, pixels in read]))

    def _read(self, place: int) -> tuple[str, NDArray[np.float32]]:
        for later in range(len(self._pairs)):
            pair = self._at(place + later)
            try:
                with Image.open(pair.image) as image:
                    return pair.caption, prepare(image, self._images)
            except Exception as error:  # whatever Pillow raises
                if pair.image not in self._unreadable:
                    print(f"left out: {pair.image} cannot be read: {error}", flush=True)  # noqa: T201
                self._unreadable.add(pair.image)
        raise DataInvalid(f"none of the {len(self._pairs)} pictures can be read")

    def _at(self, place: int) -> Pair:
        epoch, index = divmod(place, len(self._pairs))
        return self._pairs[_order(self._seed, epoch, len(self._pairs))[index]]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order
