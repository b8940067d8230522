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


def identity_of(
    team_id: str,
    weights: Mapping[str, str],
    options: Options,
    *,
    prompt: str,
    seed: int,
    images: Sequence[str] = (),
) -> UUID:
    """The first 128 bits of a SHA-256, in the one type of that size that Postgres has.

    The team is part of it, so that no result is ever found for another team.

    Args:
        weights: what answers: model, revision, and how its numbers are kept.
        options: the item's, after its own were put in the job's place.
        images: the SHA-256 of each image's bytes, in hexadecimal.
    """
    asked: dict[str, Any] = asdict(options) | {"prompt": prompt, "seed": seed}
    if isinstance(options, CaptionOptions) and options.temperature == 0:
        for name in ("seed", "top_p", "top_k"):  # a greedy answer draws nothing
            del asked[name]
    asked = {name: float(value) if type(value) is int and name != "seed" else value for name, value in asked.items()}
    record = [ANSWERS, team_id, kind_of(options), dict(weights), asked, list(images)]
    return UUID(bytes=hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()[:16])
