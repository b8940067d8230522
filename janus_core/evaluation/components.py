"""Connected parts of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def label(mask: Mask) -> tuple[NDArray[np.int32], int]:
    """Number the connected parts of a mask from 1; 0 is what the mask leaves out. Corners connect.

    Works on runs of set pixels, of which there are few, and not on pixels.
    Returns: labels of the mask's shape, and how many parts there are.
    """
    rows, starts, ends = _find_runs(mask)
    parents = list(range(len(rows)))
    above = 0  # the first run that may touch the current one from the row above
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < start):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] <= end:
            parents[_root(parents, run)] = _root(parents, other)
            other += 1
    labels = np.zeros(mask.shape, dtype=np.int32)
    numbers: dict[int, int] = {}
    for run, (row, start, end) in enumerate(zip(rows, starts, ends, strict=True)):
        labels[row, start:end] = numbers.setdefault(_root(parents, run), len(numbers) + 1)
    return labels, len(numbers)


def _find_runs(mask: Mask) -> tuple[list[int], list[int], list[int]]:
    """Row, first column and the column after the last of every run, in reading order."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return rows.tolist(), starts.tolist(), ends.tolist()


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run
