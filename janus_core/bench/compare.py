"""Rounds of everybody in turn, and what comes of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from janus_core.bench.cases import Case, Contender, Timing
from janus_core.bench.roofline import Limits, Needs


@dataclass(frozen=True)
class Ratio:
    """How many times faster we are, round by round: the median, and the least and most."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Ratio:
        return Ratio(statistics.median(values), min(values), max(values))


def compare(
    case: Case, contenders: Sequence[Contender], rounds: int, *, probe: Callable[[], Limits], least: Needs
) -> dict[str, Any]:
    """The first of the contenders is ours. One round to warm up is not counted.

    Args:
        probe: measures the machine, once in every round.
        least: what the case needs.
    """
    timings: dict[str, list[Timing]] = {each.name: [] for each in contenders}
    limits: list[Limits] = []
    for number in range(rounds + 1):
        if number:
            limits.append(probe())
        for each in contenders:
            timing = each.run(case)
            if number:
                timings[each.name].append(timing)
    ours, *peers = contenders
    mine = timings[ours.name]
    figures: dict[str, Any] = {"case": asdict(case), "rounds": rounds, "contenders": {}, "against": {}}
    for each in contenders:
        first = statistics.median(timing.first_seconds for timing in timings[each.name])
        step = statistics.median(timing.step for timing in timings[each.name])
        whole = statistics.median(timing.whole(case) for timing in timings[each.name])
        figures["contenders"][each.name] = {
            "first_seconds": first,
            "step_ms": 1000 * step,
            "tokens_per_second": case.batch / step,
            "answers_per_hour": 3600 * case.batch / whole,
        }
    for peer in peers:
        theirs = timings[peer.name]
        figures["against"][peer.name] = {
            "step": asdict(Ratio.of([t.step / m.step for m, t in zip(mine, theirs, strict=True)])),
            "first": asdict(Ratio.of([t.first_seconds / m.first_seconds for m, t in zip(mine, theirs, strict=True)])),
            "whole": asdict(Ratio.of([t.whole(case) / m.whole(case) for m, t in zip(mine, theirs, strict=True)])),
            "equal_tokens": equal_share(mine[-1].tokens, theirs[-1].tokens),
        }
    figures["roofline"] = {
        "bandwidth_gb_per_second": statistics.median(limit.bandwidth for limit in limits) / 1e9,
        "matrix_gflop_per_second": statistics.median(limit.matrix_rate for limit in limits) / 1e9,
        "step_gb": least.step_bytes / 1e9,
        "step_gflop": least.step_flops / 1e9,
        "first_gflop": least.first_flops / 1e9,
        "step": asdict(Ratio.of([least.step_seconds(m) / t.step for m, t in zip(limits, mine, strict=True)])),
        "first": asdict(
            Ratio.of([least.first_seconds(m) / t.first_seconds for m, t in zip(limits, mine, strict=True)])
        ),
    }
    return figures


def equal_share(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Of all tokens the share before each answer's first difference."""
    equal = total = 0
    for one, other in zip(ours, theirs, strict=True):
        total += len(one)
        equal += next((n for n, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))
    return equal / total
