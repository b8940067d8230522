"""Which colour of the world an object has, when only a blurred and noisy picture of it is there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from janus_core.evaluation.shapes import FILLS, OUTLINE_SHADE, PAPERS

Floats = NDArray[np.float32]

FARTHEST_PAPER = 60.0
"""A border farther from every background, in levels of RGB, is none of them."""

FARTHEST_FILL = 50.0
"""And so for objects and their mean pixel. Blurred and compressed pictures reach 42."""

_OUTLIER = 100.0
_ENOUGH_PIXELS = 200

_PAPERS = np.array(list(PAPERS.values()), dtype=np.float32)
_FILLS = np.array(list(FILLS.values()), dtype=np.float32)
_OUTLINES = np.float32(OUTLINE_SHADE) * _FILLS


def find_paper(paper_C: Floats) -> str | None:
    """The background of this colour."""
    errors = np.linalg.norm(_PAPERS - paper_C, axis=1)
    return list(PAPERS)[int(errors.argmin())] if errors.min() <= FARTHEST_PAPER else None


def find_fill(pixels_PC: Floats, paper_C: Floats) -> str | None:
    """The colour whose blends with its outline and with the paper come nearest to an object's pixels."""
    pixels_PC = pixels_PC[:: 1 + len(pixels_PC) // _ENOUGH_PIXELS]
    papers = np.broadcast_to(paper_C, _FILLS.shape)
    ends = (papers, _FILLS), (papers, _OUTLINES), (_OUTLINES, _FILLS)
    errors_PK = np.min([_from_line(pixels_PC, start, end) for start, end in ends], axis=0)
    errors = np.minimum(errors_PK, _OUTLIER).mean(axis=0)
    return list(FILLS)[int(errors.argmin())] if errors.min() <= FARTHEST_FILL else None


def _from_line(pixels_PC: Floats, starts_KC: Floats, ends_KC: Floats) -> Floats:
    """[P, K]: how far every pixel is from each line between two colours."""
    along_KC = ends_KC - starts_KC
    offsets_PKC = pixels_PC[:, None] - starts_KC
    share_PK = np.clip((offsets_PKC * along_KC).sum(axis=2) / (along_KC**2).sum(axis=1), 0, 1)
    return np.asarray(np.linalg.norm(offsets_PKC - share_PK[:, :, None] * along_KC, axis=2))
