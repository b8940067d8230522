"""Phases in a folder: what is done stays done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from janus_core.training.course import Course
from janus_core.training.loop import Settings, Stopped
from janus_core.training.losses import Losses
from janus_core.training.presets import Phase

PHASE = Phase("first", 4, 1, 0.1, 0)
SETTINGS = Settings(seed=0, precision="float32")


class Toy(nn.Module):
    def __init__(self, names: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.zeros(2)) for name in names})

    def forward(self, wanted: Tensor) -> Losses:
        return Losses(sum(((w - wanted).square().sum() for w in self.weights.values()), torch.zeros(())), {})


class Ones:
    def batch(self, step: int, process: int, num_processes: int) -> Any:
        return torch.ones(2)


class Nothing:
    def batch(self, step: int, process: int, num_processes: int) -> Any:
        raise AssertionError("what is done is not done again")


def course(out: Path, settings: Settings = SETTINGS) -> Course:
    return Course(out, settings, draw=lambda picture: None)


def test_a_phase_that_is_done_is_taken_from_its_file(tmp_path: Path) -> None:
    trained, again = Toy(), Toy()
    again.weights["b"].requires_grad_(False)
    trained.weights["b"].requires_grad_(False)
    course(tmp_path).run(PHASE, trained, Ones())
    course(tmp_path).run(PHASE, again, Nothing())
    assert trained.weights["a"].any()
    assert torch.equal(trained.weights["a"], again.weights["a"])
    assert not again.weights["b"].any()


def test_it_leaves_log_and_curves_and_no_state(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        course(tmp_path, replace(SETTINGS, stop_at=2)).run(PHASE, Toy(), Ones())
    left = {path.name for path in (tmp_path / "first").iterdir()}
    assert "state.pt" in left
    assert "done.safetensors" not in left
    course(tmp_path).run(PHASE, Toy(), Ones())
    left = {path.name for path in (tmp_path / "first").iterdir()}
    assert left == {"log.jsonl", "curves.png", "done.safetensors"}


def test_a_file_of_other_parameters_is_not_taken(tmp_path: Path) -> None:
    course(tmp_path).run(PHASE, Toy(), Ones())
    with pytest.raises(ValueError, match=r"holds other parameters: \['weights.b', 'weights.c'\]"):
        course(tmp_path).run(PHASE, Toy(("a", "c")), Nothing())


def test_samples_are_drawn_only_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janus_core.training.course._SAMPLE_EVERY_SECONDS", -1.0)
    drawn: list[Path] = []
    often = Course(tmp_path, replace(SETTINGS, save_every_seconds=0.0), drawn.append)
    often.run(PHASE, Toy(), Ones())
    assert drawn == []
    often.run(replace(PHASE, name="second"), Toy(), Ones(), with_samples=True)
    assert [path.relative_to(tmp_path).as_posix() for path in drawn] == [
        f"second/samples-{step:06d}.png" for step in range(1, 5)
    ]
