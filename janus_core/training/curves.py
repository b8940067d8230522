"""A log as a picture: every loss over steps."""

from __future__ import annotations

import math
from pathlib import Path

from janus_core.training.loop import read_log

_NO_CURVE = frozenset({"step", "seconds", "learning_rate"})


def draw_curves(log: Path, picture: Path, title: str) -> None:
    """Write a PNG; nothing where the log is empty."""
    lines = read_log(log)
    if not lines:
        return
    from matplotlib.figure import Figure

    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in _NO_CURVE]
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    steps = [line["step"] for line in lines]
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), index + 1)
        axes.plot(steps, [line.get(name, math.nan) for line in lines], linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.suptitle(f"{title}: {lines[-1]['step']} steps, {lines[-1]['seconds'] / 60:.1f} min", fontsize=10)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
