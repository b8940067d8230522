"""JanusFlow through the command line and the client, on a system of its own with one worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janus_core.checkpoints.random import tiny_flow_config, write_random_checkpoint
from tests.database import own_database
from tests.system import System, running_system

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def flow_system(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "flow", tiny_flow_config())
    logs = tmp_path_factory.mktemp("flow-system")
    with own_database(servers) as given, running_system(given, logs, f"flow={folder}", workers=1) as started:
        yield started


def drawn(system: System, out: Path, *options: str) -> list[bytes]:
    done = system.janus(
        "generate", "a red house", "a green hill", "--model", "flow", "--seed", "9", *options, "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == ["a red house", "a green hill"]
    paths = [out / line["images"][0]["file"] for line in lines]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size == (64, 64)
    return [path.read_bytes() for path in paths]


def test_prompts_are_drawn_by_steps_and_solver(flow_system: System, tmp_path: Path) -> None:
    four = drawn(flow_system, tmp_path / "four", "--steps", "4")
    assert drawn(flow_system, tmp_path / "same", "--steps", "4", "--guidance", "2") == four, "2 is JanusFlow's own"
    for name, options in {"six": ["--steps", "6"], "heun": ["--steps", "4", "--solver", "heun"]}.items():
        assert all(one != other for one, other in zip(drawn(flow_system, tmp_path / name, *options), four, strict=True))


def test_pictures_are_captioned(flow_system: System, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    done = flow_system.janus("caption", str(photos), "--model", "flow", "--max-tokens", "6", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["model"] for line in out.read_text(encoding="utf-8").splitlines()] == ["flow"] * 12


def test_an_option_that_is_not_there_is_told(flow_system: System, tmp_path: Path) -> None:
    for options in (("--steps", "0"), ("--solver", "rk4")):
        done = flow_system.janus("generate", "x", *options, "--out", str(tmp_path / "none"))
        assert done.returncode in (1, 2)
        assert options[0].removeprefix("--") in done.stderr
