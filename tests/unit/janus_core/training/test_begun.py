"""A run goes on with what it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from janus_core.errors import RunMismatch
from janus_core.training.begun import begin

OPTIONS = {"recipe": "sft", "seed": 0, "learning_rate": None}


def saved(out: Path, name: str = "state.pt") -> Path:
    (out / "sft").mkdir(parents=True)
    (out / "sft" / name).write_bytes(b"")
    return out


@pytest.mark.parametrize("name", ["state.pt", "done.safetensors"])
def test_a_run_does_not_go_on_with_other_options(name: str, tmp_path: Path) -> None:
    begin(tmp_path / "out", OPTIONS)
    saved(tmp_path / "out", name)
    begin(tmp_path / "out", OPTIONS)
    with pytest.raises(RunMismatch, match=r"out holds a run that was begun with seed 0, learning_rate None\. Give"):
        begin(tmp_path / "out", {**OPTIONS, "seed": 1, "learning_rate": 0.1})
    with pytest.raises(RunMismatch, match="epochs None"):
        begin(tmp_path / "out", {**OPTIONS, "epochs": 3})


def test_before_its_first_save_a_run_may_be_begun_otherwise(tmp_path: Path) -> None:
    begin(tmp_path, OPTIONS)
    begin(tmp_path, {**OPTIONS, "seed": 1})
    with pytest.raises(RunMismatch, match="seed 1"):
        begin(saved(tmp_path), OPTIONS)


def test_a_file_that_was_tampered_with_is_told(tmp_path: Path) -> None:
    begin(tmp_path, OPTIONS)
    (tmp_path / "options.json").write_text("[", encoding="utf-8")
    with pytest.raises(RunMismatch, match=r"options\.json cannot be read"):
        begin(saved(tmp_path), OPTIONS)
