"""What an item asks, as a digest: two items of a team with the same identity have the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from orchestrator.domain.jobs import CaptionOptions, Options, kind_of

ANSWERS = 1
"""Raised where the code changes what a request is answered with, so that no older result is taken for the new one."""


class Identities:
    """Of items that are asked with the same options: of a job, or those that an item has of its own.

    The team is part of them, so that no result is ever found for another team.

    Args:
        weights: what answers: model, revision, and how its numbers are kept.
    """

    def __init__(self, team_id: str, weights: Mapping[str, str], options: Options) -> None:
        self._is_greedy = _is_greedy(options)
        head = [ANSWERS, team_id, kind_of(options), dict(weights), _asked(options)]
        self._head = hashlib.sha256(json.dumps(head, sort_keys=True).encode())

    def of(self, *, prompt: str, seed: int, images: Sequence[str] = ()) -> UUID:
        """The first 128 bits of a SHA-256, in the one type of that size that Postgres has.

        images: the SHA-256 of each image's bytes, in hexadecimal.
        """
        digest = self._head.copy()
        drawn = "" if self._is_greedy else str(seed)
        digest.update(f"{drawn} {len(images)} {' '.join(images)} {prompt}".encode("utf-8", "surrogatepass"))
        return UUID(bytes=digest.digest()[:16])


def _asked(options: Options) -> dict[str, Any]:
    """Options but the prompt and the seed, which are the item's; 5 and 5.0 are the same."""
    asked = asdict(options)
    asked.pop("prompt", None)
    del asked["seed"]
    if _is_greedy(options):
        del asked["top_p"], asked["top_k"]
    return {name: float(value) if type(value) is int else value for name, value in asked.items()}


def _is_greedy(options: Options) -> bool:
    """Whether a caption draws nothing, so that how it would draw is nothing to it."""
    return isinstance(options, CaptionOptions) and options.temperature == 0
