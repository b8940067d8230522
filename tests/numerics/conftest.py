"""Two tiny golden models, and what the official code computed with them (data/janus-pro, data/janusflow)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from janus_core import Engine, load_engine
from janus_core.engine.lane import Lane
from janus_core.engine.rows import Row

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "janus-pro"
GOLDEN_FLOW = DATA / "janusflow"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices are small: several threads wait for each other most of the time where a machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def expected(name: str, of: Path = GOLDEN) -> dict[str, Tensor]:
    return load_file(of / "expected" / f"{name}.safetensors")


def answer(lane: Lane[Any], rows: Sequence[Row]) -> None:
    """Rows together, to the end."""
    for row in rows:
        lane.scheduler.add(row)
    while not lane.is_idle:
        lane.turn()


def published_keys(name: str) -> dict[str, tuple[int, ...]]:
    with gzip.open(DATA / "janus-keys" / f"{name}.json.gz", "rt") as file:
        return {key: tuple(shape) for key, shape in json.load(file).items()}


@pytest.fixture(scope="session")
def golden() -> Engine:
    return load_engine(GOLDEN / "model", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def golden_bf16() -> Engine:
    return load_engine(GOLDEN / "model", device="cpu", dtype="bfloat16")


@pytest.fixture(scope="session")
def flow() -> Engine:
    return load_engine(GOLDEN_FLOW / "model", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def flow_bf16() -> Engine:
    return load_engine(GOLDEN_FLOW / "model", device="cpu", dtype="bfloat16")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    raw = expected("preprocess")
    return [Image.fromarray(raw[f"raw.{n}"].numpy()) for n in range(5)]
