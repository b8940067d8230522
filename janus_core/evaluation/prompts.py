"""Prompts of GenEval's six categories, in the words of the sample world."""

from __future__ import annotations

import random
from itertools import cycle, islice, permutations, product

from janus_core.evaluation.captions import write
from janus_core.evaluation.partial import PartialGroup, PartialScene
from janus_core.evaluation.scene import COLOURS, RELATIONS, SHAPES

CATEGORIES = ("single_object", "two_objects", "counting", "colours", "position", "colour_attribution")


def spread_prompts(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Categories and prompts, as evenly as the count allows; none twice before all of its category were there once."""
    shuffled = {category: rng.sample(prompts, len(prompts)) for category, prompts in all_prompts().items()}
    endless = {category: cycle(prompts) for category, prompts in shuffled.items()}
    return [(category, next(endless[category])) for category in islice(cycle(CATEGORIES), count)]


def all_prompts() -> dict[str, list[str]]:
    """Every prompt of each category."""
    pairs = list(permutations(SHAPES, 2))
    said: dict[str, list[PartialScene]] = {
        "single_object": [PartialScene((PartialGroup(1, shape),)) for shape in SHAPES],
        "two_objects": [PartialScene((PartialGroup(1, a), PartialGroup(1, b))) for a, b in pairs],
        "counting": [PartialScene((PartialGroup(n, shape),)) for n, shape in product((2, 3, 4), SHAPES)],
        "colours": [PartialScene((PartialGroup(1, s, colour=c),)) for s, c in product(SHAPES, COLOURS)],
        "position": [
            PartialScene((PartialGroup(1, a), PartialGroup(1, b)), relation=relation)
            for (a, b), relation in product(pairs, RELATIONS)
        ],
        "colour_attribution": [
            PartialScene((PartialGroup(1, a, colour=c), PartialGroup(1, b, colour=d)))
            for (a, b), (c, d) in product(pairs, permutations(COLOURS, 2))
        ],
    }
    return {category: [write(each) for each in said[category]] for category in CATEGORIES}
