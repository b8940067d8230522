"""An evaluation as one JSON object, and as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from janus_core.evaluation.captions import parse
from janus_core.evaluation.evaluate import Captioned, Drawn, Evaluation
from janus_core.evaluation.prompts import CATEGORIES
from janus_core.evaluation.scores import Share, f1_of, interval_of_mean, mean_of


def report(evaluation: Evaluation) -> dict[str, Any]:
    """Figures are 0 to 1, and None of what was not asked; `counts` are [right, asked]."""
    seconds = {"captioning": evaluation.captioning_seconds, "generation": evaluation.generation_seconds}
    plan = asdict(evaluation.plan)
    return {
        "model": asdict(evaluation.info),
        "seed": plan.pop("seed"),
        "plan": plan,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "captioning": _captioning(evaluation),
        "generation": _generation(evaluation),
    }


def _captioning(evaluation: Evaluation) -> dict[str, Any]:
    seen, held_out = evaluation.seen, evaluation.held_out
    shares = {
        "all_attributes": Share.of(each.is_right for each in seen),
        "held_out_combinations": Share.of(each.is_right for each in held_out),
    }
    answers = [*seen, *held_out]
    return {
        **_figures(shares),
        "f1": f1_of([(each.scene, each.said) for each in seen]),
        "held_out_f1": f1_of([(each.scene, each.said) for each in held_out]),
        "rejected": _rejections(answers),
        "not_read": sum(each.said is not None and parse(each.said) is None for each in answers),
    }


def _generation(evaluation: Evaluation) -> dict[str, Any]:
    drawn = evaluation.drawn
    shares = {name: Share.of(each.is_right for each in drawn if each.category == name) for name in CATEGORIES}
    figures = _figures(shares)
    figures["intervals"] = {"mean": interval_of_mean(list(shares.values())), **figures["intervals"]}
    return {
        "mean": mean_of(list(shares.values())),
        **figures,
        "rejected": _rejections(drawn),
        "no_scene": sum(each.rejected is None and each.seen is None for each in drawn),
    }


def _rejections(answers: Sequence[Captioned | Drawn]) -> dict[str, int]:
    """How many requests were rejected with each code; they count as wrong."""
    return dict(Counter(each.rejected for each in answers if each.rejected))


def _figures(shares: dict[str, Share]) -> dict[str, Any]:
    return {
        **{name: share.value for name, share in shares.items()},
        "counts": {name: [share.right, share.count] for name, share in shares.items()},
        "intervals": {name: share.interval for name, share in shares.items()},
    }


def tabulate(figures: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The same as rows for people: what, share, interval, right of asked."""
    rows = []
    named = {"captioning": ["all_attributes", "held_out_combinations"], "generation": ["mean", *CATEGORIES]}
    for part, names in named.items():
        figure = figures[part]
        for name in names:
            counts = " / ".join(map(str, figure["counts"].get(name, ())))
            interval = _show(*(figure["intervals"][name] or ()))
            rows.append((f"{part}: {name.replace('_', ' ')}", _show(figure[name]), interval, counts))
        if part == "captioning":
            rows += [(f"captioning: F1 of {name}", _show(value), "", "") for name, value in figure["f1"].items()]
    return rows


def _show(*values: float | None) -> str:
    return " to ".join(f"{value:.3f}" for value in values if value is not None)
