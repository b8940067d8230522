"""The loop on a model of two numbers: what it trains, writes down and goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from janus_core.training.loop import Settings, Stopped, read_log, train
from janus_core.training.losses import Losses
from janus_core.training.presets import Phase

PHASE = Phase("toy", 7, 1, 0.1, 2, "cosine")
SETTINGS = Settings(seed=3, precision="float32", log_every=1)


class Toy(nn.Module):
    """Follows its batches, with noise of its own; counts the steps in a buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.was_training: list[bool] = []

    def forward(self, wanted: Tensor) -> Losses:
        self.was_training.append(self.training)
        self.count += 1
        noise = torch.randn(2)
        total = (self.weight * self.frozen - wanted + noise).square().sum()
        return Losses(total, {"noise": noise.sum()})


class Numbers:
    """The batch of step n is n."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def batch(self, step: int, process: int, num_processes: int) -> Any:
        self.asked.append((step, process, num_processes))
        return torch.full((2,), float(step))


def run(folder: Path, settings: Settings = SETTINGS, phase: Phase = PHASE, **more: Any) -> Toy:
    toy = Toy()
    train(toy, Numbers(), phase, folder, settings, **more)
    return toy


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "seconds"} for line in read_log(folder / "log.jsonl")
    ]


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(decay: float | None, tmp_path: Path) -> None:
    phase = replace(PHASE, ema_decay=decay)
    whole = run(tmp_path / "whole", phase=phase)
    for stop_at in (2, 5):
        with pytest.raises(Stopped, match=f"toy stopped after step {stop_at} of 7"):
            run(tmp_path / "parts", replace(SETTINGS, stop_at=stop_at), phase)
    parts = run(tmp_path / "parts", phase=phase)
    assert torch.equal(whole.weight, parts.weight)
    assert whole.count == parts.count == 7
    assert without_seconds(tmp_path / "whole") == without_seconds(tmp_path / "parts")
    assert [line["step"] for line in read_log(tmp_path / "parts" / "log.jsonl")] == list(range(1, 8))


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1"), run(tmp_path / "2", replace(SETTINGS, seed=4))
    assert not torch.equal(one.weight, other.weight)


def test_a_log_line_is_the_mean_over_its_steps_and_the_last_step_has_one(tmp_path: Path) -> None:
    run(tmp_path / "each")
    run(tmp_path / "thirds", replace(SETTINGS, log_every=3))
    each, thirds = without_seconds(tmp_path / "each"), without_seconds(tmp_path / "thirds")
    assert [line["step"] for line in thirds] == [3, 6, 7]
    for line, steps in zip(thirds, (each[0:3], each[3:6], each[6:]), strict=True):
        for name in ("loss", "noise", "gradient_norm"):
            mean = sum(step[name] for step in steps) / len(steps)
            assert line[name] == pytest.approx(mean, rel=1e-3, abs=1e-3)
    assert each[1]["learning_rate"] == PHASE.learning_rate


def test_what_is_frozen_stays_and_what_is_computed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = run(tmp_path)
    assert toy.frozen.item() == 5.0
    assert not torch.equal(toy.weight, torch.tensor([1.0, -1.0]))
    assert toy.was_training == [True] * 7
    assert not toy.training
    assert "toy 7/7  loss " in capsys.readouterr().out


def test_every_batch_is_asked_once_and_none_beyond_the_end(tmp_path: Path) -> None:
    numbers = Numbers()
    train(Toy(), numbers, PHASE, tmp_path, SETTINGS)
    assert numbers.asked == [(step, 0, 1) for step in range(7)]


def test_the_mean_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    trained: list[Tensor] = []
    mean = Toy().weight.detach().clone()

    class Watched(Toy):
        def forward(self, wanted: Tensor) -> Losses:
            trained.append(self.weight.detach().clone())
            return super().forward(wanted)

    watched = Watched()
    train(watched, Numbers(), replace(PHASE, ema_decay=0.5), tmp_path / "watched", SETTINGS)
    last = run(tmp_path / "plain")
    for weight in [*trained[1:], last.weight.detach()]:
        mean = 0.5 * mean + 0.5 * weight
    torch.testing.assert_close(watched.weight.detach(), mean)


def test_a_save_that_was_cut_off_changes_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", replace(SETTINGS, stop_at=3))
    (tmp_path / "cut" / "state.pt.arriving").write_bytes(b"half a st")
    assert torch.equal(run(tmp_path / "cut").weight, whole.weight)


def test_saves_are_told_with_the_model_out_of_training(tmp_path: Path) -> None:
    toy, told = Toy(), []
    settings = replace(SETTINGS, save_every_seconds=0.0)
    train(toy, Numbers(), PHASE, tmp_path, settings, lambda step: told.append((step, toy.training)))
    assert told == [(step, False) for step in range(1, 8)]
    assert toy.was_training == [True] * 7
