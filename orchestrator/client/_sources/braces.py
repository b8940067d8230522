"""Brace patterns as shells and WebDataset have them: `shard-{000..009}.tar`, `{train,val}.tar`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from orchestrator.client._errors import BadSource

MAX_NAMES = 100_000
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def expand_braces(pattern: str) -> list[str]:
    """The names in order; the pattern itself where it has no braces. Raises BadSource: too many."""
    parts, choices, end, count = list[str](), list[Sequence[str]](), 0, 1
    for found in _BRACES.finditer(pattern):
        parts.append(pattern[end : found.start()])
        first, last, words = found.groups()
        choice = words.split(",") if words is not None else range(int(first), int(last) + 1)
        count *= len(choice)
        if count > MAX_NAMES:
            raise BadSource(f"{pattern}: the braces stand for more than {MAX_NAMES} names")
        choices.append([word if isinstance(word, str) else f"{word:0{len(first)}d}" for word in choice])
        end = found.end()
    parts.append(pattern[end:])
    return ["".join(map("".join, zip(parts, (*words, ""), strict=True))) for words in product(*choices)]
