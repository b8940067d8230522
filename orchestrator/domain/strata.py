"""A sample of a stream that is too long to be held: one of each of so many equal stretches, the strata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
MAX_SAMPLE = 10_000  # items; somebody is to look at them


def draw_indexes(total: int, sample: int, seed: int) -> Iterator[int]:
    """One index of each of `sample` equal strata of range(total), ascending; every one where there are no more.

    The same three numbers draw the same indexes, on every machine and whatever was drawn before.
    """
    strata = min(total, sample)
    for stratum in range(strata):
        first, end = stratum * total // strata, (stratum + 1) * total // strata
        digest = hashlib.sha256(f"sample {seed} {stratum}".encode()).digest()
        yield first + int.from_bytes(digest[:8]) % (end - first)


def pick(stream: Iterable[T], indexes: Iterator[int]) -> Iterator[T]:
    """What stands at these indexes, which ascend; nothing is read behind the last of them."""
    wanted = next(indexes, None)
    if wanted is None:
        return
    for index, each in enumerate(stream):
        if index == wanted:
            yield each
            wanted = next(indexes, None)
            if wanted is None:
                return
