"""A small byte-level BPE tokenizer for a model that is trained from nothing.

Any text can be written with it, byte by byte if need be; the words of the sample world are one token each. The fixed
system sentence of the chat format is one entry of its own: a small model would otherwise spend a third of every
understanding prompt on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from janus_core.processing import chat

_SPECIAL = (chat.BOS, chat.EOS, chat.PAD, chat.IMAGE_START, chat.IMAGE_END, chat.IMAGE)
_ROLES = (chat.BRACKETED.user, chat.BRACKETED.assistant)


def write_vocabulary(folder: Path, corpus: Iterable[str], size: int, *, bracketed: bool) -> int:
    """Train on `corpus` and write tokenizer.json and its settings.

    Args:
        size: entries at most, special tokens included.
        bracketed: whether <|User|> and <|Assistant|> are tokens, as Janus-Pro's.
    Returns: the number of entries.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = [*_SPECIAL, *(_ROLES if bracketed else ())]
    if size < (least := 256 + len(special) + 1):
        raise ValueError(f"a vocabulary of {size} cannot hold every byte and the special tokens; {least} is the least")
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=size - len(special) - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(chat.SYSTEM_PROMPT, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{chat.BOS} $A",
        pair=f"{chat.BOS} $A {chat.BOS} $B",
        special_tokens=[(chat.BOS, tokenizer.token_to_id(chat.BOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": chat.BOS, "eos_token": chat.EOS, "pad_token": chat.PAD}
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        **tokens,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, content in (("tokenizer_config", settings), ("special_tokens_map", tokens)):
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return int(tokenizer.get_vocab_size())
