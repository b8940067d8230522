"""What is in a picture of the sample world: one to three groups of equal objects before a plain background.

Four kinds are sampled: `single`, one object; `several`, two to four equal objects; `relation`, two single objects, one
left of, right of, above or below the other; `mixed`, two or three groups of together three or four objects.
Some triples of shape, colour and relation are held out: training never shows them, evaluation asks for them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "medium", "large")
BACKGROUNDS = ("white", "gray", "black", "beige")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = tuple(INVERSE)
KINDS = {"single": 0.2, "several": 0.2, "relation": 0.35, "mixed": 0.25}
"""Each kind with its share."""

MOST_OBJECTS = 4

_VALUES: dict[str, tuple[Any, ...]] = {
    "count": tuple(range(1, MOST_OBJECTS + 1)),
    "size": SIZES,
    "colour": COLOURS,
    "shape": SHAPES,
}
_COUNTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "single": ((1,),),
    "several": ((2,), (3,), (4,)),
    "relation": ((1, 1),),
    "mixed": ((1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)),
}


@dataclass(frozen=True)
class Group:
    """`count` objects that are alike."""

    count: int
    size: str
    colour: str
    shape: str


@dataclass(frozen=True, eq=False)
class Scene:
    """relation: where the first group is, seen from the second; only of two groups of one object each.

    Scenes are equal when they mean the same: A left of B is B right of A, and the order of groups says nothing.
    """

    groups: tuple[Group, ...]
    background: str
    relation: str | None = None

    def canonical(self) -> Scene:
        """The one scene among its equals with the left or upper object first, or else with sorted groups."""
        if self.relation is None:
            return replace(self, groups=tuple(sorted(self.groups, key=_order)))
        return self if self.relation in ("left", "above") else self.flipped()

    def flipped(self) -> Scene:
        """The same scene with its groups the other way round."""
        relation = None if self.relation is None else INVERSE[self.relation]
        return replace(self, groups=self.groups[::-1], relation=relation)

    @property
    def kind(self) -> str:
        """Which of KINDS it is; two single objects are a relation, said or unsaid."""
        if len(self.groups) == 1:
            return "single" if self.groups[0].count == 1 else "several"
        return "relation" if [group.count for group in self.groups] == [1, 1] else "mixed"

    def _meaning(self) -> tuple[object, ...]:
        scene = self.canonical()
        return scene.groups, scene.background, scene.relation

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scene) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())


def _order(group: Group) -> tuple[int, ...]:
    places = SHAPES.index(group.shape), COLOURS.index(group.colour), SIZES.index(group.size)
    return (*places, group.count)


HELD_OUT = frozenset(
    (shape, COLOURS[(3 * row + 2 * column) % len(COLOURS)], relation)
    for column, relation in enumerate(RELATIONS)
    for row, shape in enumerate(SHAPES)
    if row != column
)
"""20 of the 192 triples (shape, colour, relation): five of each relation, three or four of each shape."""


def is_held_out(scene: Scene) -> bool:
    """Whether one of two objects stands, seen from the other, in a relation that is held out for it."""
    if scene.relation is None:
        return False
    first, second = scene.groups
    return (first.shape, first.colour, scene.relation) in HELD_OUT or (
        second.shape,
        second.colour,
        INVERSE[scene.relation],
    ) in HELD_OUT


def sample_scene(rng: random.Random, kind: str | None = None, held_out: bool = False) -> Scene:
    """A scene of any kind, or of one of KINDS; only such as training never shows, or only such as it may.

    Raises ValueError: scenes of this kind are never held out.
    """
    if held_out and kind not in (None, "relation"):
        raise ValueError(f"scenes of kind {kind!r} are never held out")
    if kind is None:
        kind = "relation" if held_out else rng.choices(list(KINDS), list(KINDS.values()))[0]
    while True:
        scene = _sample(rng, kind)
        if is_held_out(scene) == held_out:
            return scene


def vary_scene(scene: Scene, rng: random.Random) -> Scene:
    """A scene that training may show, with one thing changed; a relation ends where an object becomes several."""
    while True:
        varied = _vary(scene, rng)
        looks = {(group.colour, group.shape) for group in varied.groups}
        is_drawable = len(looks) == len(varied.groups) and sum(group.count for group in varied.groups) <= MOST_OBJECTS
        is_whole = (varied.relation is not None) == (varied.kind == "relation")
        if is_drawable and is_whole and varied != scene and not is_held_out(varied):
            return varied


def _vary(scene: Scene, rng: random.Random) -> Scene:
    what = rng.choice(("background", "relation", *_VALUES))
    if what == "background":
        return replace(scene, background=rng.choice(BACKGROUNDS))
    if what == "relation":
        return scene if scene.relation is None else replace(scene, relation=rng.choice(RELATIONS))
    groups = list(scene.groups)
    place = rng.randrange(len(groups))
    change: dict[str, Any] = {what: rng.choice(_VALUES[what])}
    groups[place] = replace(groups[place], **change)
    are_single = all(group.count == 1 for group in groups)
    return Scene(tuple(groups), scene.background, scene.relation if are_single else None)


def _sample(rng: random.Random, kind: str) -> Scene:
    counts = rng.choice(_COUNTS[kind])
    looks: list[tuple[str, str]] = []
    while len(looks) < len(counts):
        look = rng.choice(COLOURS), rng.choice(SHAPES)
        if look not in looks:
            looks.append(look)
    groups = tuple(Group(count, rng.choice(SIZES), *look) for count, look in zip(counts, looks, strict=True))
    relation = rng.choice(RELATIONS) if kind == "relation" else None
    return Scene(groups, rng.choice(BACKGROUNDS), relation)
