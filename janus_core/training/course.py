"""Phases one after another in one folder; what is done stays done, and the same command goes on with the rest.

OUT/PHASE/log.jsonl, curves.png, state.pt while it runs, done.safetensors after
OUT/checkpoint/training.json   how it was made: seed, precision, every phase with its steps, seconds and last losses
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from janus_core.training.curves import draw_curves
from janus_core.training.loop import Settings, Stream, read_log, train
from janus_core.training.presets import Phase

_SAMPLE_EVERY_SECONDS = 300.0


class Course:
    """draw: makes the pictures of samples, given where to; called every few minutes of a phase that asks for them."""

    def __init__(self, out: Path, settings: Settings, draw: Callable[[Path], None]) -> None:
        self._out, self._settings, self._draw = out, settings, draw
        self._drawn_at = time.monotonic()
        self._phases: list[Phase] = []

    def run(self, phase: Phase, objective: nn.Module, stream: Stream, *, with_samples: bool = False) -> None:
        """Train what requires gradients in `objective`, or take it from done.safetensors."""
        from accelerate import PartialState

        self._phases.append(phase)
        folder = self._out / phase.name
        done = folder / "done.safetensors"
        trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
        if done.is_file():
            _fill(trained, load_file(done))
            return

        def on_save(step: int) -> None:
            draw_curves(folder / "log.jsonl", folder / "curves.png", phase.name)
            if with_samples and time.monotonic() - self._drawn_at > _SAMPLE_EVERY_SECONDS:
                self._draw(folder / f"samples-{step:06d}.png")
                self._drawn_at = time.monotonic()

        train(objective, stream, phase, folder, self._settings, on_save)
        if PartialState().is_main_process:
            draw_curves(folder / "log.jsonl", folder / "curves.png", phase.name)
            arriving = folder / "done.arriving"
            save_file({name: p.detach().contiguous() for name, p in trained.items()}, arriving)
            arriving.rename(done)
            (folder / "state.pt").unlink(missing_ok=True)
        PartialState().wait_for_everyone()

    def finish(self, save: Callable[[Path], None]) -> Path:
        """Let one process `save` the model into OUT/checkpoint, and say there how it was made. Returns that folder."""
        from accelerate import PartialState

        checkpoint = self._out / "checkpoint"
        if PartialState().is_main_process:
            save(checkpoint)
            told = json.dumps(self._told(), indent=1) + "\n"
            (checkpoint / "training.json").write_text(told, encoding="utf-8")
        PartialState().wait_for_everyone()
        return checkpoint

    def _told(self) -> dict[str, Any]:
        phases = []
        for phase in self._phases:
            lines = read_log(self._out / phase.name / "log.jsonl")
            phases.append(asdict(phase) | {"ended": lines[-1] if lines else None})
        settings = {"seed": self._settings.seed, "precision": self._settings.precision, "torch": torch.__version__}
        return settings | {"phases": phases}


@torch.no_grad()
def _fill(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor]) -> None:
    if parameters.keys() != tensors.keys():
        raise ValueError(f"the finished phase holds other parameters: {sorted(parameters.keys() ^ tensors.keys())[:4]}")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
