"""Sweeps: each prompt with every combination of some options, an item each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from math import prod
from typing import Any

from orchestrator.client._errors import BadSource, InvalidOption
from orchestrator.client._options import check_options
from orchestrator.client._sources.items import SourceItem
from orchestrator.domain.jobs import GenerateOptions, JobKind

MAX_COMBINATIONS = 10_000  # of one prompt
MAX_ITEMS = 1_000_000  # of a job with a sweep
Sweep = Mapping[str, Sequence[Any]]


def sweep_over(items: Iterable[SourceItem], sweep: Sweep, options: GenerateOptions) -> Iterator[SourceItem]:
    """The items, each once for every combination; the last option of the sweep changes first.

    An id is that of the prompt, else its place, and what was swept: `3-guidance=5-seed=1`. The combinations are looked
    at now. Raises InvalidOption, and while it is read BadSource.
    """
    values = {name: list(several) for name, several in sweep.items()}
    count = prod(map(len, values.values()))
    if count > MAX_COMBINATIONS:
        raise InvalidOption(f"the sweep has {count} combinations for each prompt; at most {MAX_COMBINATIONS} are made")
    for name, several in values.items():
        if not several or len(set(map(repr, several))) < len(several):
            raise InvalidOption(f"sweep of {name!r}: give it one or more values that differ, not {several}")
    combinations = [dict(zip(values, each, strict=True)) for each in product(*values.values())]
    for combination in combinations:
        check_options(JobKind.generate, asdict(options) | combination)
    return _swept(items, combinations)


def _swept(items: Iterable[SourceItem], combinations: list[dict[str, Any]]) -> Iterator[SourceItem]:
    num_items = 0
    for number, item in enumerate(items):
        if not isinstance(item.line, dict) or "failure" in item.line:
            yield item
            continue
        num_items += len(combinations)
        if num_items > MAX_ITEMS:
            raise BadSource(
                f"the prompts and the sweep make more than {MAX_ITEMS} items; sweep less, or make several jobs"
            )
        for combination in combinations:
            yield SourceItem(_line(item.line, number, combination))


def _line(line: dict[str, Any], number: int, combination: dict[str, Any]) -> dict[str, Any]:
    """A line's own options stay, unless they are swept."""
    own = line.get("options") or {}
    if not isinstance(own, dict):
        return line  # which the server says
    swept = {"id": "-".join([str(line.get("id", number)), *(f"{name}={value}" for name, value in combination.items())])}
    if "seed" in combination:
        swept["seed"] = combination["seed"]
    return line | swept | {"options": own | _without_seed(combination)}


def _without_seed(combination: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in combination.items() if name != "seed"}
