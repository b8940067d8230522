"""What is minimised, and what each term is called in logs.

Shapes: R rows of logits, V choices; B images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_OBJECT_CONTRAST, _OBJECT_WEIGHT = 0.25, 2.0
"""Pixels that differ so much from their picture's median are of objects; few, they weigh so many times more."""


@dataclass(frozen=True)
class Losses:
    """total: float32 [], to be minimised. parts: detached scalars by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class CrossEntropy:
    """One mean over every target of a step, whatever its kind: no task has a weight of its own (Janus, section 3.2)."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._count = 0
        self._parts: dict[str, Tensor] = {}

    def add(self, name: str, logits_RV: Tensor, targets_R: Tensor) -> None:
        total = nn.functional.cross_entropy(logits_RV.float(), targets_R, reduction="sum")
        self._sums.append(total)
        self._count += len(targets_R)
        self._parts[name] = total.detach() / len(targets_R)

    def mean(self) -> Losses:
        """Raises ValueError: nothing was added."""
        if not self._sums:
            raise ValueError("a batch without a single target teaches nothing")
        return Losses(torch.stack(self._sums).sum() / self._count, self._parts)


def reconstruction(drawn_BCHW: Tensor, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """mean |x' - x| and mean (x' - x)^2, in which objects weigh more than what is behind them."""
    weights_B1HW = object_weights(pixels_BCHW)
    difference_BCHW = drawn_BCHW.float() - pixels_BCHW
    return (weights_B1HW * difference_BCHW.abs()).mean(), (weights_B1HW * difference_BCHW.square()).mean()


def object_weights(pixels_BCHW: Tensor) -> Tensor:
    """[B, 1, H, W], of mean 1."""
    papers_BC11 = pixels_BCHW.flatten(2).median(-1).values[..., None, None]
    is_object_B1HW = (pixels_BCHW - papers_BC11).abs().amax(1, keepdim=True) > _OBJECT_CONTRAST
    weights_B1HW = torch.where(is_object_B1HW, _OBJECT_WEIGHT, 1.0)
    return weights_B1HW / weights_B1HW.mean()


def sigmoid_contrastive(images_BE: Tensor, texts_BE: Tensor, same_BB: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """-log sigmoid over all pairs of a batch, summed over texts, averaged over images.

    Args:
        images_BE, texts_BE: unit-length embeddings.
        same_BB: bool, where a text says what an image shows; the diagonal, and equal texts.
        scale, bias: learnt, of the logits.
    Source: SigLIP (arXiv 2303.15343), algorithm 1.
    """
    logits_BB = scale * images_BE @ texts_BE.T + bias
    signs_BB = same_BB.to(logits_BB.dtype) * 2 - 1
    return -nn.functional.logsigmoid(signs_BB * logits_BB.float()).sum(1).mean()
