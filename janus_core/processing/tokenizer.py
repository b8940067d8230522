"""The checkpoint's own tokenizer.json, and the ids of its special tokens.

transformers' AutoTokenizer and LlamaTokenizer rebuild the tokenizer from its vocabulary since version 5, and lose
parts of a byte-level one; PreTrainedTokenizerFast takes tokenizer.json as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janus_core.errors import TokenizerInvalid
from janus_core.processing import chat


class Tokenizer:
    """Text to ids and back. The ids of special tokens differ between models (Pro-1B and 7B by 13): never constants."""

    def __init__(self, fast: Any, where: str, adds: Sequence[str] = chat.MARKS) -> None:
        self._fast = fast
        for mark in adds:
            if mark not in fast.get_vocab():
                fast.add_special_tokens({"additional_special_tokens": [mark]}, replace_extra_special_tokens=False)
        self._vocab: dict[str, int] = fast.get_vocab()
        needed = (chat.BOS, chat.EOS, chat.PAD, chat.IMAGE_START, chat.IMAGE_END, chat.IMAGE)
        absent = [token for token in needed if token not in self._vocab]
        if absent:
            raise TokenizerInvalid(f"{where} lacks the special tokens {', '.join(absent)}")
        self.bos_id, self.eos_id, self.pad_id, self.image_start_id, self.image_end_id, self.image_id = (
            self._vocab[token] for token in needed
        )

    @classmethod
    def from_folder(cls, folder: Path, adds: Sequence[str] = chat.MARKS) -> Tokenizer:
        """Read tokenizer.json, and add the marks `adds` where they are absent, as the official processors do.

        Raises TokenizerInvalid: absent, unreadable, or without a special token.
        """
        from transformers import PreTrainedTokenizerFast

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerInvalid(f"{folder} has no tokenizer.json")
        try:
            load: Any = PreTrainedTokenizerFast  # which carries no types
            fast = load(tokenizer_file=str(path), clean_up_tokenization_spaces=False)
        except Exception as error:  # the Rust side raises bare Exception
            raise TokenizerInvalid(f"{path} cannot be read: {error}") from error
        return cls(fast, str(path), adds)

    @property
    def largest_text_id(self) -> int:
        """The largest id but the image mark's, whose embedding is never looked up."""
        return max(token_id for token_id in self._vocab.values() if token_id != self.image_id)

    def knows(self, token: str) -> bool:
        """Whether `token` is one entry of the vocabulary."""
        return token in self._vocab

    def encode(self, text: str) -> list[int]:
        """Ids with the begin-of-sentence in front, once, and no end-of-sentence."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=False)
        return [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._fast.decode(list(ids), skip_special_tokens=True)
        return text

    def texts(self) -> list[bytes]:
        """What each id adds to a decoded text, in UTF-8 that may begin or end inside a character."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        named: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
        bytes_of = {char: bytes([byte]) for byte, char in named.items()}
        texts = [b""] * (1 + max(self._vocab.values()))
        special, added = set(self._fast.all_special_ids), self._fast.added_tokens_decoder
        for token, token_id in self._vocab.items():
            if token_id in added:
                texts[token_id] = b"" if token_id in special or added[token_id].special else token.encode()
            else:
                texts[token_id] = b"".join(bytes_of.get(char, char.encode()) for char in token)
        return texts

    def expand_images(self, ids: Sequence[int], num_image_tokens: int) -> list[int]:
        """Put begin-of-image, `num_image_tokens` placeholders and end-of-image for every image mark."""
        image = [self.image_start_id, *[self.image_id] * num_image_tokens, self.image_end_id]
        return [new for old in ids for new in (image if old == self.image_id else [old])]
