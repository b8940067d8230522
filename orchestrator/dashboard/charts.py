"""A job's throughput over time, as the numbers that a drawing of bars needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.dashboard import formats

BINS = 60
WIDTH, HEIGHT = 600, 96  # of the drawing's own units; it grows with the page


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Chart:
    """Bars, the rate that the highest one stands for, and the ends of the axis."""

    bars: Sequence[Bar]
    peak: str
    begin: datetime
    end: datetime
    words: str


def draw_throughput(counts: Sequence[int], begin: datetime, end: datetime) -> Chart | None:
    """Of items that finished in each stretch; None where there is too little to see."""
    seconds = (end - begin).total_seconds()
    if sum(1 for count in counts if count) < 2 or seconds <= 0:
        return None
    stretch = seconds / len(counts)
    most, width = max(counts), WIDTH / len(counts)
    bars = [
        Bar(
            round(number * width + 0.5, 2),
            round(HEIGHT - HEIGHT * count / most, 2),
            round(width - 1, 2),
            round(HEIGHT * count / most, 2),
            f"{formats.clock(begin + timedelta(seconds=number * stretch))} UTC: {formats.rate(count / stretch)}",
        )
        for number, count in enumerate(counts)
        if count
    ]
    peak = formats.rate(most / stretch)
    mean = formats.rate(sum(counts) / seconds)
    return Chart(bars, peak, begin, end, f"Items over time: {mean} on average, {peak} at most")
