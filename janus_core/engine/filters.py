"""What a caption may say: words that it never holds, and a length that it reaches.

Words are avoided in the text, not in one spelling of it in tokens: at each step every token is out that would complete
a phrase, whatever tokens its beginning was made of. Rows without a filter are not touched.

A phrase counts where it begins a word, whatever comes behind it: "art" is found in "an artist" and not in "a heart". Of
letters a to z large and small are the same; of others only as the phrase has them, or all large, all small, or with a
large first letter.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from janus_core.engine.requests import CaptionRequest, Rejected
from janus_core.processing.tokenizer import Tokenizer

MAX_PHRASES_KEPT = 1000  # of all requests, with the tokens that each one rules out
MAX_STATES_KEPT = 1000  # of all phrases of a request together


@dataclass(frozen=True, eq=False)
class Phrase:
    """A spelling of what is avoided, as lower-case bytes.

    inside: tokens that hold it, behind something that is no part of a word. following[k]: those that go on where its
    first k bytes end; following[0] begin with it.
    """

    spelling: bytes
    inside: tuple[int, ...]
    following: tuple[tuple[int, ...], ...]

    def begun(self, text: bytes) -> tuple[int, ...]:
        """How many of its bytes a text of lower-case bytes may end with: of "a ta" and "tap" none, and two."""
        return tuple(count for count in range(len(self.spelling)) if self._ends(text, count))

    def _ends(self, text: bytes, count: int) -> bool:
        first = len(text) - count
        if first < 0 or not text.endswith(self.spelling[:count]):
            return False
        return not (first and is_of_a_word(text[first - 1]) and is_of_a_word(self.spelling[0]))

    def tokens(self, begun: Iterable[int]) -> set[int]:
        """What would complete it."""
        return {*self.inside, *(token for count in begun for token in self.following[count])}


class Vocabulary:
    """The tokens' texts, in order, so that those with one beginning lie side by side.

    texts: of each id, as UTF-8; empty for tokens that no text shows.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = [text.lower() for text in texts]
        self._order = sorted(range(len(self.texts)), key=self.texts.__getitem__)
        self._sorted = [self.texts[token] for token in self._order]
        self._phrase = lru_cache(MAX_PHRASES_KEPT)(self._make_phrase)
        self.ruled_out = lru_cache(MAX_STATES_KEPT)(self._rule_out)

    def phrases(self, avoided: str) -> list[Phrase]:
        """Its spellings: large and small letters beyond a to z are bytes of their own."""
        spellings = {text.strip().encode().lower() for text in _cases(avoided)}
        return [self._phrase(spelling) for spelling in sorted(spellings)]

    def _rule_out(self, states: tuple[tuple[Phrase, tuple[int, ...]], ...]) -> Tensor:
        """The tokens that complete one of the phrases, of each of which so much has begun; int64 [tokens]."""
        ids = sorted({token for phrase, begun in states for token in phrase.tokens(begun)})
        return torch.tensor(ids, dtype=torch.int64)

    def _make_phrase(self, spelling: bytes) -> Phrase:
        before = rb"(?<![0-9a-z_\x80-\xff])" if is_of_a_word(spelling[0]) else b""
        behind_something = re.compile(rb"(?s:.)" + before + re.escape(spelling))
        holding = ((token, text) for token, text in enumerate(self.texts) if spelling in text)
        inside = tuple(token for token, text in holding if behind_something.search(text))
        return Phrase(spelling, inside, tuple(self._beginning_with(spelling[k:]) for k in range(len(spelling))))

    def _beginning_with(self, start: bytes) -> tuple[int, ...]:
        first = bisect_left(self._sorted, start)
        count = 0
        while first + count < len(self._sorted) and self._sorted[first + count].startswith(start):
            count += 1
        return tuple(self._order[first : first + count])


@dataclass(frozen=True, eq=False)
class Filter:
    """Of one caption.

    begun: its forced beginning, as lower-case bytes. min_tokens: of what the model adds to that.
    """

    vocabulary: Vocabulary
    phrases: tuple[Phrase, ...]
    begun: bytes
    min_tokens: int
    eos_id: int

    def rule_out(self, logits_V: Tensor, tokens: Sequence[int]) -> None:
        """Change the logits of what comes behind these tokens of the answer."""
        if len(tokens) < self.min_tokens:
            logits_V[self.eos_id] = float("-inf")
        if self.phrases:
            text = self._end_of(tokens, 1 + max(len(phrase.spelling) for phrase in self.phrases))
            ids = self.vocabulary.ruled_out(tuple((phrase, phrase.begun(text)) for phrase in self.phrases))
            logits_V[ids.to(logits_V.device)] = float("-inf")

    def _end_of(self, tokens: Sequence[int], num_bytes: int) -> bytes:
        """The last bytes of the answer: so many, or all."""
        end = b""
        for token in reversed(tokens):
            end = self.vocabulary.texts[token] + end
            if len(end) >= num_bytes:
                return end
        return self.begun + end


class Filters:
    """What captions of one model are held to. Any thread may ask; the vocabulary is made for the first that needs it.

    vocab_size: of the model, which may have embeddings that no token uses.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    def begin(self, request: CaptionRequest) -> list[int] | Rejected:
        """The tokens of the answer's forced beginning; as in any answer, a space stands before them."""
        prefix = request.prefix.strip()
        if not prefix:
            return []
        ids = self._tokenizer.encode(f" {prefix}")[1:]
        if not all(self._vocabulary.texts[token] for token in ids):
            return Rejected("option_invalid", "prefix holds a special token of the model's. Take it out.")
        if len(ids) >= request.max_new_tokens:
            return Rejected(
                "option_invalid",
                f"prefix is {len(ids)} tokens long, and max_new_tokens {request.max_new_tokens}. Allow more.",
            )
        return ids

    def of(self, request: CaptionRequest, begun: Sequence[int]) -> Filter | None:
        """None where the model may say what it likes."""
        min_tokens = request.min_new_tokens - len(begun)
        if not request.avoid and min_tokens <= 0:
            return None
        phrases = tuple(phrase for avoided in request.avoid for phrase in self._vocabulary.phrases(avoided))
        text = b"".join(self._vocabulary.texts[token] for token in begun)
        return Filter(self._vocabulary, phrases, text, min_tokens, self._tokenizer.eos_id)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        texts = self._tokenizer.texts()
        return Vocabulary([*texts, *[b""] * (self._vocab_size - len(texts))])


def rule_out(logits_BV: Tensor, filters: Sequence[tuple[int, Filter, Sequence[int]]]) -> None:
    """Change rows in place: of each its number, its filter and its tokens so far."""
    for row, own, tokens in filters:
        own.rule_out(logits_BV[row], tokens)


def is_of_a_word(byte: int) -> bool:
    """A letter, a digit, an underscore, or part of what is not ASCII."""
    return byte >= 0x80 or byte == 0x5F or chr(byte).isalnum()


def _cases(text: str) -> tuple[str, ...]:
    return text, text.lower(), text.upper(), text[:1].upper() + text[1:], text.title()
