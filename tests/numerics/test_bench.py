"""The benchmark runs everybody on the same inputs, and everybody gives the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janus_core.bench.__main__ import main
from janus_core.bench.compare import Ratio, equal_share
from janus_core.checkpoints.random import write_random_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("bench") / "tiny", dtype="float32", seed=1)


@pytest.mark.parametrize("task", ["caption", "generate"])
@pytest.mark.parametrize("batch", [1, 3])
def test_everybody_gives_the_same_tokens(
    folder: Path, task: str, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        f"--model={folder}",
        f"--task={task}",
        f"--batch={batch}",
        "--prompt-tokens=40",
        "--tokens=6",
        "--rounds=2",
    ]
    assert main([*given, "--device=cpu", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["case"] == {"task": task, "batch": batch, "prompt_tokens": 40, "num_tokens": 6}
    assert set(figures["contenders"]) == {"janus-batch", "transformers", "official-style"}
    for times in figures["contenders"].values():
        assert times["step_ms"] > 0
        assert times["first_seconds"] > 0
    assert {peer["equal_tokens"] for peer in figures["against"].values()} == {1.0}


def test_a_table_and_a_folder_that_is_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--model={folder}", "--tokens=4", "--rounds=1", "--peer=official-style", "--device=cpu"]) == 0
    header, ours, peer = capsys.readouterr().out.splitlines()
    assert "a step" in header
    assert ours.startswith("janus-batch")
    assert peer.startswith("official-style")
    assert "100%" in peer
    assert main([f"--model={folder}", "--task=caption", "--batch=300", "--tokens=2", "--rounds=1", "--peer=none"]) == 1
    assert "ask for more" in capsys.readouterr().err
    assert main([f"--model={tmp_path / 'nothing'}"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_ratios_and_equal_shares() -> None:
    assert Ratio.of([3.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    assert equal_share([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 0, 4], [5, 6, 7, 8]]) == 6 / 8
