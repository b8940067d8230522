"""One phase of training: steps, a log, a state to resume from.

The batch and the random numbers of a step follow from the seed, the phase and the step alone. So a run that was
stopped and resumed gives the same weights as one that was not; on the CPU, with as many threads, bit for bit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from janus_core.training.losses import Losses
from janus_core.training.optimizer import RunningMean, build_optimizers, learning_rate_at, set_learning_rates
from janus_core.training.presets import CLIP_NORM, Phase
from janus_core.training.seeds import seed_of

Precision = Literal["bfloat16", "float32"]


class Stream(Protocol):
    """Data of a phase. `batch` is a pure function: of the step, and of which of several processes asks."""

    def batch(self, step: int, process: int, num_processes: int) -> Any: ...


@dataclass(frozen=True)
class Settings:
    """seed: of everything. stop_at: end early, as if the power went."""

    seed: int
    precision: Precision
    log_every: int = 20
    save_every_seconds: float = 120.0
    stop_at: int | None = None


class Stopped(Exception):
    """`stop_at` was reached; the state is saved."""


def train(
    objective: nn.Module,
    stream: Stream,
    phase: Phase,
    folder: Path,
    settings: Settings,
    on_save: Callable[[int], None] | None = None,
) -> None:
    """Train the parameters of `objective` that require gradients; resume if `folder` holds a state.

    Where a running mean is kept, the objective holds it at the end. Several processes (`accelerate launch`) share each
    batch; that is untested.

    Args:
        folder: takes state.pt while it runs and log.jsonl.
        on_save: called with the step after each save, at most every `save_every_seconds`.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision="bf16" if settings.precision == "bfloat16" else "no")
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    wrapped, *optimizers = accelerator.prepare(objective, *build_optimizers(objective, phase))
    mean = RunningMean(trained, phase.ema_decay) if phase.ema_decay is not None else None
    run = _Run(objective, optimizers, mean, folder)
    first = run.resume()
    log = Log(folder / "log.jsonl", phase, first, settings.log_every if accelerator.is_main_process else 0)
    saved_at = time.monotonic()
    objective.train()
    for step, batch in _prefetched(stream, first, phase.steps, accelerator.process_index, accelerator.num_processes):
        set_learning_rates(optimizers, phase, step)
        torch.manual_seed(seed_of(settings.seed, phase.name, step, accelerator.process_index))
        with _attention(accelerator.device):
            losses: Losses = wrapped(_moved(batch, accelerator.device))
        accelerator.backward(losses.total)
        norm = accelerator.clip_grad_norm_(trained, CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if mean is not None:
            mean.update()
        log.add(step, losses, norm)
        stopping = settings.stop_at is not None and step + 1 >= settings.stop_at
        if accelerator.is_main_process and (stopping or time.monotonic() - saved_at > settings.save_every_seconds):
            log.flush()
            run.save(step + 1)
            saved_at = time.monotonic()
            if on_save is not None:
                run.show(partial(on_save, step + 1))
        if stopping:
            raise Stopped(f"{phase.name} stopped after step {step + 1} of {phase.steps}")
    log.flush()
    if mean is not None:
        mean.exchange()
    objective.eval()


class _Run:
    """What a phase changes, and state.pt, which holds it."""

    def __init__(
        self, objective: nn.Module, optimizers: list[torch.optim.Optimizer], mean: RunningMean | None, folder: Path
    ) -> None:
        self._objective, self._optimizers, self._mean, self._folder = objective, optimizers, mean, folder

    def _kept(self) -> dict[str, Tensor]:
        """By name: what is trained, and buffers."""
        trained = {name: p.detach() for name, p in self._objective.named_parameters() if p.requires_grad}
        return trained | dict(self._objective.named_buffers())

    def save(self, step: int) -> None:
        """Write the state beside its place and move it there: a kill leaves the old one or the new one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path, arriving = self._folder / "state.pt", self._folder / "state.pt.arriving"
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        state = {"step": step, "tensors": self._kept(), "optimizers": optimizers}
        torch.save(state | ({} if self._mean is None else {"means": self._mean.means}), arriving)
        os.replace(arriving, path)

    @torch.no_grad()
    def resume(self) -> int:
        """The step to go on with: 0 where there is no state."""
        path = self._folder / "state.pt"
        if not path.is_file():
            return 0
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, tensor in self._kept().items():
            tensor.copy_(state["tensors"][name])
        if self._mean is not None:
            for mean, saved in zip(self._mean.means, state["means"], strict=True):
                mean.copy_(saved)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return int(state["step"])

    def show(self, look: Callable[[], None]) -> None:
        """Let somebody look at the objective as it would be kept if it ended now."""
        self._objective.eval()
        if self._mean is not None:
            self._mean.exchange()
        look()
        if self._mean is not None:
            self._mean.exchange()
        self._objective.train()


class Log:
    """log.jsonl: a line for every so many steps, its losses the means over them. A resumed run drops what is newer."""

    def __init__(self, path: Path, phase: Phase, first: int, every: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(path) if line["step"] <= first]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._path, self._phase, self._every = path, phase, every
        self._seconds = kept[-1]["seconds"] if kept else 0.0
        self._started = time.monotonic()
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._lines: list[str] = []

    def add(self, step: int, losses: Losses, norm: Tensor) -> None:
        if not self._every:
            return
        values = {"loss": losses.total.detach(), **losses.parts, "gradient_norm": norm}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1
        if (step + 1) % self._every and step + 1 < self._phase.steps:
            return
        means = {name: float(f"{float(total) / self._count:.5g}") for name, total in self._sums.items()}
        seconds = round(self._seconds + time.monotonic() - self._started, 1)
        rate = float(f"{learning_rate_at(self._phase, step):.4g}")
        line = {"step": step + 1, **means, "learning_rate": rate, "seconds": seconds}
        self._lines.append(json.dumps(line))
        self._sums, self._count = {}, 0
        print(_spoken(self._phase, line), flush=True)  # noqa: T201

    def flush(self) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in self._lines)
        self._lines = []


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _spoken(phase: Phase, line: dict[str, Any]) -> str:
    told = "  ".join(f"{name} {value}" for name, value in line.items() if name not in ("step", "seconds"))
    return f"{phase.name} {line['step']}/{phase.steps}  {told}  {line['seconds']:.0f} s"


def _prefetched(stream: Stream, first: int, end: int, process: int, num_processes: int) -> Iterator[tuple[int, Any]]:
    """Steps with their batches; the next is made while one is computed."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(stream.batch, first, process, num_processes) if first < end else None
        for step in range(first, end):
            assert coming is not None
            batch = coming.result()
            coming = pool.submit(stream.batch, step + 1, process, num_processes) if step + 1 < end else None
            yield step, batch


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Plain products on the CPU: for rows of a hundred tokens the backward pass of its fused kernel takes longer."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, tuple):
        return tuple(_moved(part, device) for part in batch)
    if batch is None:
        return None
    return batch.to(device)
