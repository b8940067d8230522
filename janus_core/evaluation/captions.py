"""The captions of the sample world: scenes to words, and words back to what they say.

caption   = things [" on a " background " background"]
things    = thing (" to the left of " | " to the right of " | " above " | " below ") thing      each a single object
          | thing {", " thing} [" and " thing]                                 claims no relation
thing     = ("a" | "two" | "three" | "four") [size] [colour] shape
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from janus_core.evaluation.partial import PartialGroup, PartialScene
from janus_core.evaluation.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

COUNTS = {1: "a", 2: "two", 3: "three", 4: "four"}
PLACES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}

_FULL_PROMPTS = 0.5
_UNSAID = {"size": 0.8, "background": 0.8, "colour": 0.5, "relation": 0.4}
"""How many of the other prompts leave an attribute out."""


def describe(scene: Scene) -> str:
    """The one full caption that all equal scenes share."""
    return write(PartialScene.of(scene.canonical()))


def phrase(scene: Scene, rng: random.Random) -> str:
    """Any of the full captions that mean the scene."""
    return write(_shuffled(PartialScene.of(scene), rng))


def prompt_for(scene: Scene, rng: random.Random) -> str:
    """What somebody might ask for and get this scene: half of the time all of it, else some attributes unsaid.

    Colours stay where shapes alone do not tell the groups apart.
    """
    said = _shuffled(PartialScene.of(scene), rng)
    if rng.random() < _FULL_PROMPTS:
        return write(said)
    unsaid = {name for name, share in _UNSAID.items() if rng.random() < share}
    if len({group.shape for group in said.groups}) < len(said.groups):
        unsaid.discard("colour")
    groups = tuple(
        PartialGroup(
            group.count,
            group.shape,
            None if "size" in unsaid else group.size,
            None if "colour" in unsaid else group.colour,
        )
        for group in said.groups
    )
    background = None if "background" in unsaid else said.background
    return write(PartialScene(groups, background, None if "relation" in unsaid else said.relation))


def _shuffled(said: PartialScene, rng: random.Random) -> PartialScene:
    """The same in another order, and with the relation seen from the other side as often as not."""
    if said.relation is not None:
        return said.flipped() if rng.random() < 0.5 else said
    return replace(said, groups=tuple(rng.sample(said.groups, len(said.groups))))


def write(said: PartialScene) -> str:
    """What is said, in words and in the order given."""
    things = [_write_group(group) for group in said.groups]
    if said.relation is not None:
        text = f" {PLACES[said.relation]} ".join(things)
    else:
        text = " and ".join(part for part in (", ".join(things[:-1]), things[-1]) if part)
    return text if said.background is None else f"{text} on a {said.background} background"


def _write_group(group: PartialGroup) -> str:
    noun = group.shape if group.count == 1 else PLURALS[group.shape]
    words = [COUNTS.get(group.count, str(group.count)), group.size, group.colour, noun]
    if group.count == 1 and (group.size or group.colour or group.shape)[0] in "aeiou":
        words[0] = "an"
    return " ".join(word for word in words if word)


_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "1": 1, "2": 2, "3": 3, "4": 4}
_NOUNS = {shape: (shape, False) for shape in SHAPES} | {word: (shape, True) for shape, word in PLURALS.items()}
_GROUP = re.compile(rf"({'|'.join(_NUMBERS)})(?: ({'|'.join(SIZES)}))?(?: ({'|'.join(COLOURS)}))? ({'|'.join(_NOUNS)})")
_BACKGROUND = re.compile(rf"(.*) on an? ({'|'.join(BACKGROUNDS)}) background")
_OPENING = re.compile(r"^an? (?:photo|picture|image) of ")


def parse(text: str) -> PartialScene | None:
    """What a caption says, or None where it is not of this grammar.

    Case, spaces, a full stop, "a photo of", a for an, and digits for numbers make no difference.
    """
    rest = _OPENING.sub("", " ".join(text.lower().split()).removesuffix(".").rstrip())
    background = None
    if found := _BACKGROUND.fullmatch(rest):
        rest, background = found.groups()
    for relation, words in PLACES.items():
        if f" {words} " in rest:
            return _parse_groups(rest.split(f" {words} "), background, relation)
    return _parse_groups(re.split(r", and |, | and ", rest), background, None)


def _parse_groups(things: list[str], background: str | None, relation: str | None) -> PartialScene | None:
    groups = [group for group in map(_parse_group, things) if group is not None]
    if len(groups) < len(things) or (relation and [group.count for group in groups] != [1, 1]):
        return None
    return PartialScene(tuple(groups), background, relation)


def _parse_group(thing: str) -> PartialGroup | None:
    found = _GROUP.fullmatch(thing)
    if found is None:
        return None
    number, size, colour, noun = found.groups()
    shape, is_plural = _NOUNS[noun]
    count = _NUMBERS[number]
    return PartialGroup(count, shape, size, colour) if is_plural == (count > 1) else None
