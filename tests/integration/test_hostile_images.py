"""Hundreds of damaged, hostile and odd files through real decoders: pixels or a coded failure, and nobody is hurt."""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest

from orchestrator.settings import Settings
from tests.hostile_images import make_images
from tests.unit.test_decoder_pool import GOOD, SETTINGS, children
from workers.decoder_pool import DecoderPool
from workers.errors import BadInput

SEED = 11
DEFAULT = {name: field.default for name, field in Settings.model_fields.items()}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(make_images(SEED))


def outcome(pool: DecoderPool, name: str, data: bytes) -> str:
    """`pixels`, or the failure's code."""
    try:
        picture = pool.decode(data, place=name, max_pixels=DEFAULT["max_image_pixels"], fit=asdict(SETTINGS))
    except BadInput as error:
        code, message = error.code, str(error)
    else:
        assert (picture.mode, picture.size) == ("RGB", (48, 48)), name
        return "pixels"
    assert code in ("image_unreadable", "image_too_large"), name
    assert message.startswith(name)
    assert message.endswith((".", "?")), message
    assert "JANUS_DECODE_SECONDS" not in message, "what is cheap to make is cheap to refuse"
    return code


def test_every_file_ends_with_pixels_or_a_coded_failure(files: dict[str, bytes]) -> None:
    assert len(files) >= 300
    before = children()
    pool = DecoderPool(processes=1, memory_bytes=DEFAULT["decode_memory_bytes"], seconds=DEFAULT["decode_seconds"])
    pool.decode(GOOD, place="the first", max_pixels=1000)
    (first,) = children() - before
    outcomes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name, data in files.items():
        began = time.monotonic()
        outcomes[name] = outcome(pool, name, data)
        seconds[name] = time.monotonic() - began
    assert pool.decode(GOOD, place="the last", max_pixels=1000).size == (20, 10)
    (alive,) = children() - before
    pool.close()
    slowest = max(seconds, key=seconds.__getitem__)
    counts = {outcome: list(outcomes.values()).count(outcome) for outcome in sorted(set(outcomes.values()))}
    print(f"{len(files)} files: {counts}; slowest {seconds[slowest]:.2f} s: {slowest}")
    assert {"pixels", "image_unreadable", "image_too_large"} <= set(counts)
    assert alive == first, "a decoder died, where none has to"


def test_the_same_seed_gives_the_same_files(files: dict[str, bytes]) -> None:
    again, other = (dict(make_images(seed)) for seed in (SEED, SEED + 1))
    assert files == again
    assert set(files) == set(other)
    assert files != other
