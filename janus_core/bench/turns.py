"""Everybody in turn, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import torch

from janus_core.bench.clock import now
from janus_core.bench.compare import Ratio

Result = TypeVar("Result")


def in_turns(
    run: Mapping[str, Callable[[], Result]], rounds: int, device: torch.device
) -> tuple[dict[str, Any], dict[str, Result]]:
    """The first is ours.

    Returns:
        everybody's seconds, and how many times faster we are; what each gave last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in run}
    results: dict[str, Result] = {}
    for _ in range(rounds):
        for name, action in run.items():
            began = now(device)
            results[name] = action()
            seconds[name].append(now(device) - began)
    ours, *peers = run
    ratios = {name: [t / m for m, t in zip(seconds[ours], seconds[name], strict=True)] for name in peers}
    figures = {
        "rounds": rounds,
        "contenders": {name: {"seconds": statistics.median(times)} for name, times in seconds.items()},
        "against": {name: {"whole": asdict(Ratio.of(values))} for name, values in ratios.items()},
    }
    return figures, results
