"""The small text tokenizer: any text, and the sample world in few tokens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from janus_core.evaluation.captions import COUNTS, PLURALS, describe
from janus_core.evaluation.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, sample_scene
from janus_core.processing import chat
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training.recipes.tiny import VOCABULARY
from janus_core.training.vocabulary import write_vocabulary

WORDS = (*COUNTS.values(), *SIZES, *COLOURS, *SHAPES, *PLURALS.values(), *BACKGROUNDS)


@pytest.mark.parametrize(
    "text",
    [
        "a small red circle",
        " Leading,  double\tand trailing \n\n",
        "Zażółć gęślą jaźń – 猫がいる 🐈\u200d⬛ \U0001f1eb\U0001f1f7",
        "\x00\x07 control, \u2028 and \ufeff",
        f"before {chat.SYSTEM_PROMPT} behind",
        "".join(map(chr, range(1, 600))),
    ],
)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_word_of_the_world_is_one_token(tokenizer: Tokenizer) -> None:
    lengths = {word: len(tokenizer.encode(f" {word}")) - 1 for word in (*WORDS, "background", "above", "below")}
    assert {word: length for word, length in lengths.items() if length > 1} == {}


def test_a_caption_has_as_many_tokens_as_words(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    for caption in (describe(sample_scene(rng)) for _ in range(200)):
        assert len(tokenizer.encode(f" {caption}")) - 1 == len(caption.replace(",", " ,").split()), caption


def test_the_system_sentence_is_one_token_wherever_it_stands(tokenizer: Tokenizer) -> None:
    alone = tokenizer.encode(chat.SYSTEM_PROMPT)
    assert len(alone) == 2
    assert tokenizer.encode(chat.caption_prompt("What?", chat.BRACKETED))[:2] == alone


@pytest.mark.parametrize("bracketed", [True, False])
def test_special_tokens_are_found_and_roles_only_where_they_are_asked_for(
    texts: list[str], bracketed: bool, tmp_path: Path
) -> None:
    size = write_vocabulary(tmp_path, texts[:200], VOCABULARY, bracketed=bracketed)
    tokenizer = Tokenizer.from_folder(tmp_path)
    special = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    special += [tokenizer.image_start_id, tokenizer.image_end_id, tokenizer.image_id]
    assert len(set(special)) == 6
    assert max(special) < size
    for role in (chat.BRACKETED.user, chat.BRACKETED.assistant):
        assert tokenizer.knows(role) == bracketed
        assert (len(tokenizer.encode(role)) == 2) == bracketed
    assert tokenizer.encode(f"{chat.EOS}a{chat.IMAGE}")[1::2] == [tokenizer.eos_id, tokenizer.image_id]
    assert tokenizer.decode([*special, *tokenizer.encode("words")]) == "words"


def test_it_is_no_larger_than_asked_for_and_the_same_again(texts: list[str], tmp_path: Path) -> None:
    sizes = [write_vocabulary(tmp_path / str(size), texts, size, bracketed=True) for size in (300, 340)]
    assert sizes == [300, 340]
    assert Tokenizer.from_folder(tmp_path / "300").largest_text_id < 300
    write_vocabulary(tmp_path / "again", texts, 300, bracketed=True)
    written = [(tmp_path / folder / "tokenizer.json").read_bytes() for folder in ("300", "again")]
    assert written[0] == written[1]
