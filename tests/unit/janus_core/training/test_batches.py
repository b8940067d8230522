"""Rows and batches: the strings of inference, and targets where the answers are."""

from __future__ import annotations

import numpy as np
import torch

from janus_core.processing import chat
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training.batches import (
    IGNORED,
    MixedBatch,
    RowMaker,
    TextRow,
    collate_generation,
    collate_text,
    collate_understanding,
)

QUESTION, ANSWER = "What is there?", "a small red circle on a white background"
PICTURE = np.zeros((3, 2, 2), np.float32)


def test_an_answer_stands_behind_the_prompt_of_inference(rows: RowMaker, tokenizer: Tokenizer) -> None:
    row = rows.understanding(QUESTION, ANSWER)
    prompt = tokenizer.encode(chat.caption_prompt(QUESTION, chat.BRACKETED))
    assert row.ids[: row.first_target] == tokenizer.expand_images(prompt, 4)
    assert tokenizer.decode(row.ids[row.first_target :]).strip() == ANSWER
    assert row.ids[-1] == tokenizer.eos_id


def test_prompt_and_answer_are_the_tokens_of_the_whole_conversation(rows: RowMaker, tokenizer: Tokenizer) -> None:
    roles = chat.BRACKETED
    said = [(roles.user, f"{chat.IMAGE}\n{QUESTION}"), (roles.assistant, ANSWER)]
    whole = tokenizer.encode(chat.format_conversation(said, chat.SYSTEM_PROMPT))
    assert rows.understanding(QUESTION, f" {ANSWER}\n").ids == tokenizer.expand_images(whole, 4)
    said = [(roles.user, QUESTION), (roles.assistant, ANSWER)]
    dialogue = rows.dialogue(QUESTION, ANSWER)
    assert dialogue.ids == tokenizer.encode(chat.format_conversation(said, ""))
    assert tokenizer.decode(dialogue.ids[dialogue.first_target :]).strip() == ANSWER


def test_plain_text_is_learnt_from_its_first_token_on(rows: RowMaker, tokenizer: Tokenizer) -> None:
    row = rows.text(ANSWER)
    assert row == TextRow([*tokenizer.encode(ANSWER), tokenizer.eos_id], 1)


def test_an_image_prompt_is_that_of_inference(rows: RowMaker, tokenizer: Tokenizer) -> None:
    ids = rows.image_prompt("a star")
    assert ids == tokenizer.encode(chat.image_prompt("a star", chat.BRACKETED))
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.image_start_id)


def test_targets_sit_exactly_on_the_answer() -> None:
    batch = collate_text([TextRow([1, 2, 3, 4, 5], 3), TextRow([1, 6], 1)])
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [1, 6, 0, 0, 0]]
    assert batch.targets.tolist() == [[IGNORED, IGNORED, 4, 5, IGNORED], [6, *[IGNORED] * 4]]


def test_no_prompt_image_or_padding_is_a_target(rows: RowMaker, tokenizer: Tokenizer) -> None:
    made = [rows.understanding(QUESTION, answer) for answer in ("a star", ANSWER)]
    batch = collate_understanding(made, [PICTURE, PICTURE])
    for ids, targets, row in zip(batch.ids.tolist(), batch.targets.tolist(), made, strict=True):
        assert ids[: len(row.ids)] == row.ids
        learnt = [(place + 1, target) for place, target in enumerate(targets) if target != IGNORED]
        assert learnt == list(enumerate(row.ids))[row.first_target :]
        assert tokenizer.image_id not in [target for _, target in learnt]


def test_prompts_are_padded_behind_and_keep_their_lengths() -> None:
    batch = collate_generation([[1, 2, 9], [1, 9]], [False, True], [PICTURE, PICTURE + 1])
    assert batch.ids.tolist() == [[1, 2, 9], [1, 9, 0]]
    assert (batch.lengths.tolist(), batch.dropped.tolist()) == ([3, 2], [False, True])
    assert batch.pixels.shape == (2, 3, 2, 2)
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 1]


def test_a_batch_moves_with_all_its_kinds() -> None:
    meta = torch.device("meta")
    text = collate_text([TextRow([1, 2], 1)])
    moved = MixedBatch(text=text, generation=collate_generation([[1, 9]], [False], [PICTURE])).to(meta)
    assert moved.understanding is None
    assert moved.text is not None
    assert moved.generation is not None
    assert {moved.text.ids.device, moved.text.targets.device, moved.generation.dropped.device} == {meta}
