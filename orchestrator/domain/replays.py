"""An item that was made again: in what its two lines differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SAID = ("caption", "num_tokens", "finish_reason")


@dataclass(frozen=True)
class Comparison:
    """What differs between a result and the same item made again.

    words: a sentence for each field. images: which pictures have other bytes, by their place in the line.
    """

    words: tuple[str, ...]
    images: tuple[int, ...]
    revisions: tuple[str, str]  # of the weights, before and now

    @property
    def same(self) -> bool:
        return not self.words and not self.images

    @property
    def same_weights(self) -> bool:
        return self.revisions[0] == self.revisions[1]


def compare_lines(before: Mapping[str, Any], now: Mapping[str, Any]) -> Comparison:
    """The stored line and the new one. Index, id and model are not looked at; of a failure its code is."""
    pictures = _digests(before), _digests(now)
    changed = [k for k in range(max(map(len, pictures))) if _at(pictures[0], k) != _at(pictures[1], k)]
    revisions = (str(before.get("revision", "unknown")), str(now.get("revision", "unknown")))
    return Comparison(tuple(_words(before, now)), tuple(changed), revisions)


def _words(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    codes = [(line.get("failure") or {}).get("code") for line in (before, now)]
    if codes[0] != codes[1]:
        yield " and ".join(
            f"{when} it {'failed with ' + str(code) if code else 'had a result'}"
            for when, code in zip(("before", "now"), codes, strict=True)
        )
        return
    for name in _SAID:
        if before.get(name) != now.get(name):
            yield f"{name} was {before.get(name)!r} and is {now.get(name)!r}"


def _digests(line: Mapping[str, Any]) -> list[str]:
    return [str(image["sha256"]) for image in line.get("images", ())]


def _at(digests: list[str], k: int) -> str | None:
    return digests[k] if k < len(digests) else None
