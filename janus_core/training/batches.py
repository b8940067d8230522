"""Rows of tokens and pictures, padded behind, with the targets that the loss looks at.

Shapes: B rows, T tokens, P prompt tokens, S pixels along a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from janus_core.processing import chat
from janus_core.processing.tokenizer import Tokenizer

IGNORED = -100
"""The target of a position that no loss looks at."""


@dataclass(frozen=True)
class TextRow:
    """Token ids, and from which on they are targets: 1 is every token after the first."""

    ids: list[int]
    first_target: int


@dataclass(frozen=True)
class _Tensors:
    def to(self, device: torch.device) -> Self:
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else value.to(device) for name, value in moved.items()})


@dataclass(frozen=True)
class TextBatch(_Tensors):
    """ids, targets: int64 [B, T]; targets[b, t] is the token to follow ids[b, t], or IGNORED."""

    ids: Tensor
    targets: Tensor


@dataclass(frozen=True)
class UnderstandingBatch(_Tensors):
    """As TextBatch, with image placeholders in ids; pixels: float32 [images, 3, S, S], in the rows' order."""

    ids: Tensor
    targets: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class GenerationBatch(_Tensors):
    """ids: int64 [B, P] to begin-of-image, padded; lengths, dropped: int64, bool [B]; pixels: [-1, 1], [B, 3, S, S].

    dropped: the picture is to be learnt without its prompt. The ids are whole; each family leaves it out its own way.
    """

    ids: Tensor
    lengths: Tensor
    dropped: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class MixedBatch(_Tensors):
    """What one optimizer step looks at; a kind that has no rows is None."""

    understanding: UnderstandingBatch | None = None
    text: TextBatch | None = None
    generation: GenerationBatch | None = None


class RowMaker:
    """Conversations as rows of tokens: the strings of inference with the answer behind them."""

    def __init__(self, tokenizer: Tokenizer, roles: chat.Roles, num_image_tokens: int) -> None:
        self._tokenizer, self._roles, self._num_image_tokens = tokenizer, roles, num_image_tokens

    def understanding(self, question: str, answer: str) -> TextRow:
        """One image, a question about it and the answer; the answer alone is learnt."""
        prompt = self._tokenizer.encode(chat.caption_prompt(question, self._roles))
        return self._with_answer(self._tokenizer.expand_images(prompt, self._num_image_tokens), answer)

    def dialogue(self, question: str, answer: str) -> TextRow:
        """Text alone; the answer is learnt."""
        prompt = chat.format_conversation([(self._roles.user, question), (self._roles.assistant, "")], "")
        return self._with_answer(self._tokenizer.encode(prompt), answer)

    def text(self, text: str) -> TextRow:
        """Plain text, learnt from its first token on."""
        return TextRow([*self._tokenizer.encode(text), self._tokenizer.eos_id], 1)

    def image_prompt(self, prompt: str) -> list[int]:
        """From begin-of-sentence to begin-of-image."""
        return self._tokenizer.encode(chat.image_prompt(prompt, self._roles))

    def _with_answer(self, prompt: list[int], answer: str) -> TextRow:
        said = self._tokenizer.encode(f" {answer.strip()}")[1:]  # as the template joins role and text
        return TextRow([*prompt, *said, self._tokenizer.eos_id], len(prompt))


def collate_text(rows: Sequence[TextRow]) -> TextBatch:
    ids_BT, targets_BT = (
        _pad([row.ids for row in rows]),
        torch.full((len(rows), max(len(row.ids) for row in rows)), IGNORED),
    )
    for n, row in enumerate(rows):
        targets_BT[n, row.first_target - 1 : len(row.ids) - 1] = torch.tensor(row.ids[row.first_target :])
    return TextBatch(ids_BT, targets_BT)


def collate_understanding(rows: Sequence[TextRow], pixels: Sequence[NDArray[np.float32]]) -> UnderstandingBatch:
    text = collate_text(rows)
    return UnderstandingBatch(text.ids, text.targets, torch.from_numpy(np.stack(pixels)))


def collate_generation(
    prompts: Sequence[list[int]], dropped: Sequence[bool], pixels: Sequence[NDArray[np.float32]]
) -> GenerationBatch:
    return GenerationBatch(
        ids=_pad(prompts),
        lengths=torch.tensor([len(prompt) for prompt in prompts]),
        dropped=torch.tensor(dropped),
        pixels=torch.from_numpy(np.stack(pixels)),
    )


def _pad(rows: Sequence[list[int]]) -> Tensor:
    """Zeros behind, which nothing that counts ever sees: attention is causal."""
    ids_BT = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
    for n, row in enumerate(rows):
        ids_BT[n, : len(row)] = torch.tensor(row)
    return ids_BT
