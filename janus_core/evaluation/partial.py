"""What a caption says of a scene, which may be less than all: unsaid attributes are None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from janus_core.evaluation.scene import INVERSE, RELATIONS, Group, Scene, is_held_out

USUAL_SIZE = "medium"
USUAL_BACKGROUND = "white"
USUAL_COLOURS = {
    "circle": "red",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "cross": "orange",
    "ring": "purple",
}
"""None of them is held out for its shape, in any relation."""


@dataclass(frozen=True)
class PartialGroup:
    """`count` objects of one shape; size and colour may be unsaid."""

    count: int
    shape: str
    size: str | None = None
    colour: str | None = None

    def fits(self, group: Group) -> bool:
        """Whether an object of that group is as said; counts are not looked at."""
        sizes, colours = (None, group.size), (None, group.colour)
        return self.shape == group.shape and self.size in sizes and self.colour in colours


@dataclass(frozen=True)
class PartialScene:
    """Groups in the order they are named; `relation` is where the first is, seen from the second."""

    groups: tuple[PartialGroup, ...]
    background: str | None = None
    relation: str | None = None

    @classmethod
    def of(cls, scene: Scene) -> PartialScene:
        """All that there is to say, in the scene's order."""
        groups = tuple(PartialGroup(g.count, g.shape, g.size, g.colour) for g in scene.groups)
        return cls(groups, scene.background, scene.relation)

    def flipped(self) -> PartialScene:
        """The same with the groups the other way round."""
        relation = None if self.relation is None else INVERSE[self.relation]
        return replace(self, groups=self.groups[::-1], relation=relation)

    def to_scene(self) -> Scene | None:
        """The one scene that this describes; None where something is unsaid, or a group is named twice."""
        groups = [Group(g.count, g.size, g.colour, g.shape) for g in self.groups if g.size and g.colour]
        if len(groups) < len(self.groups) or self.background is None:
            return None
        if len({replace(group, count=1) for group in groups}) < len(groups):
            return None
        scene = Scene(tuple(groups), self.background, self.relation)
        return None if scene.kind == "relation" and scene.relation is None else scene

    def to_usual_scene(self) -> Scene:
        """The scene with what is unsaid as it usually is; of two objects the first is left of the other.

        Where that is held out, it is in the next relation that is not: no two objects have all four held out.
        """
        groups = tuple(
            Group(g.count, g.size or USUAL_SIZE, g.colour or USUAL_COLOURS[g.shape], g.shape) for g in self.groups
        )
        scene = Scene(groups, self.background or USUAL_BACKGROUND, self.relation)
        if scene.kind != "relation" or scene.relation is not None:
            return scene
        related = [replace(scene, relation=relation) for relation in RELATIONS]
        return next(each for each in related if not is_held_out(each))


def matches(partial: PartialScene, scene: Scene) -> bool:
    """Whether a scene has the objects that are named, and no others, as and where they are said to be."""
    if partial.background not in (None, scene.background):
        return False
    if partial.relation is not None:
        return any(_match_in_order(partial, view) for view in (scene, scene.flipped()))
    named = [group for group in partial.groups for _ in range(group.count)]
    seen = [group for group in scene.groups for _ in range(group.count)]
    return len(named) == len(seen) and _can_assign(named, seen)


def _match_in_order(partial: PartialScene, scene: Scene) -> bool:
    return (
        scene.relation == partial.relation
        and [group.count for group in scene.groups] == [group.count for group in partial.groups]
        and all(said.fits(group) for said, group in zip(partial.groups, scene.groups, strict=True))
    )


def _can_assign(named: Sequence[PartialGroup], seen: Sequence[Group]) -> bool:
    """Whether every named object can be another seen one."""
    if not named:
        return True
    return any(
        named[0].fits(group) and _can_assign(named[1:], [*seen[:place], *seen[place + 1 :]])
        for place, group in enumerate(seen)
    )
