"""Connected parts of masks."""

from __future__ import annotations

import random

import numpy as np

from janus_core.evaluation.components import label


def _parts(*rows: str) -> tuple[list[str], int]:
    labels, count = label(np.array([[pixel == "#" for pixel in row] for row in rows]))
    return ["".join(" 123456789"[number] for number in row) for row in labels], count


def test_parts_are_numbered_in_reading_order() -> None:
    assert _parts("##  #", "    #", "##   ") == (["11  2", "    2", "33   "], 3)


def test_corners_connect() -> None:
    assert _parts("# #", " # ", "# #") == (["1 1", " 1 ", "1 1"], 1)


def test_branches_that_meet_further_down_are_one_part() -> None:
    assert _parts("# # #", "# ###", "###  ") == (["1 1 1", "1 111", "111  "], 1)
    assert _parts("#####", "#   #", "# # #", "#   #", "#####")[1] == 2


def test_no_pixel_is_no_part() -> None:
    assert label(np.zeros((3, 4), dtype=bool))[1] == 0
    assert _parts("####")[1] == 1


def test_random_masks_are_labelled_as_by_flooding() -> None:
    rng = random.Random(0)
    for _ in range(60):
        height, width, share = rng.randint(1, 12), rng.randint(1, 12), rng.random()
        mask = np.array([[rng.random() < share for _ in range(width)] for _ in range(height)])
        labels, count = label(mask)
        flooded = _flood(mask)
        assert count == flooded.max(initial=0)
        assert np.array_equal(labels > 0, mask)
        assert len({*zip(labels.flat, flooded.flat, strict=True)} - {(0, 0)}) == count


def _flood(mask: np.ndarray) -> np.ndarray:
    labels = np.zeros(mask.shape, dtype=int)
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number, waiting = labels.max() + 1, [start]
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                labels[y, x] = number
                waiting += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return labels
