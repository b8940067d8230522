"""Endless data of the sample world, each batch a function of seed, phase and step.

Source of the mixture: presets.py; of questions as questions and answers, and of the template: the Janus paper, 3.3.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from janus_core.evaluation.captions import describe, parse, phrase, prompt_for
from janus_core.evaluation.render import PLAIN, VARIED, Placed, Style, compose, place, render
from janus_core.evaluation.scene import COLOURS, KINDS, SHAPES, SIZES, Scene, sample_scene, vary_scene
from janus_core.processing.images import ImageSettings, scale
from janus_core.training.batches import (
    GenerationBatch,
    MixedBatch,
    RowMaker,
    TextBatch,
    TextRow,
    UnderstandingBatch,
    collate_generation,
    collate_text,
    collate_understanding,
)
from janus_core.training.presets import DROP_PROMPT, Phase

QUESTIONS = (
    "Describe this image.",
    "What is in this image?",
    "Caption this image.",
    "What do you see?",
    "Describe the picture.",
)
REPHRASE = "Say it another way: {}"
_FAMILY = 4
_READ, _WRITTEN = 0.5, 0.25
"""How many texts for the language model are pictures in words that are captioned, and that are made from prompts."""
_USUAL_QUESTION = 0.5
"""How often the first question is asked; otherwise any of them."""


LOOKS = (SHAPES, COLOURS, SIZES)
"""What is told of every patch; 0 stands for nothing, and n for the nth of these."""


def label_patches(placed: Sequence[Placed], grid_side: int) -> list[tuple[int, ...]]:
    """Row by row the looks of the object that a patch's middle is nearest to, if the two touch."""
    half = 0.5 / grid_side
    labels = []
    for row, column in product(range(grid_side), repeat=2):
        middle = (column / grid_side + half, row / grid_side + half)
        distance, nearest = min((math.dist(each.centre, middle) - each.radius, n) for n, each in enumerate(placed))
        group = placed[nearest].group
        looks = (group.shape, group.colour, group.size)
        told = (1 + names.index(look) for names, look in zip(LOOKS, looks, strict=True))
        labels.append(tuple(told) if distance < half else (0,) * len(LOOKS))
    return labels


def spell(scene: Scene, placed: Sequence[Placed], grid_side: int, rng: random.Random) -> str:
    """The picture in words, a word for each patch, row by row: the background, or any one look of what is there."""
    words = []
    for looks in label_patches(placed, grid_side):
        kind = rng.randrange(len(LOOKS))
        words.append(LOOKS[kind][looks[kind] - 1] if any(looks) else scene.background)
    return " ".join(words)


def corpus(seed: int, count: int) -> list[str]:
    """Sentences of all kinds that training shows, for a vocabulary."""
    rng = random.Random(f"{seed}:corpus")
    texts = [*QUESTIONS, *(REPHRASE.format("") for _ in range(count // 20))] * 2
    for _ in range(count):
        scene = sample_scene(rng)
        texts += [f" {describe(scene)}", f": {phrase(scene, rng)}\n\n", f": {prompt_for(scene, rng)}\n\n"]
        texts += [f" {word}" for group in scene.groups for word in (group.shape, group.colour, group.size)]
    return texts


@dataclass(frozen=True)
class Drawn:
    """What pictures drawing is taught by.

    kinds: of scenes, each with its share. style: how much pictures of one scene differ. is_usual: whether what a prompt
    leaves unsaid is as usual, instead of any.
    """

    kinds: Mapping[str, float] = field(default_factory=lambda: KINDS)
    style: Style = PLAIN
    is_usual: bool = False


ANY_PLAIN = Drawn()


class _World:
    """Scenes and pictures for the rows of a phase."""

    def __init__(self, images: ImageSettings, seed: int, phase: Phase) -> None:
        self._images, self._seed, self._phase = images, seed, phase

    def rngs(self, kind: str, count: int, step: int, process: int, num_processes: int) -> list[random.Random]:
        """One for each row of this process; a row's does not depend on how many processes there are."""
        return [self.rng(kind, step, row) for row in range(process, count, num_processes)]

    def rng(self, kind: str, step: int, row: int) -> random.Random:
        name = f"train:{self._seed}:{self._phase.name}:{kind}:{step}:{row}"
        return random.Random(hashlib.sha256(name.encode()).digest())

    def picture(self, scene: Scene, rng: random.Random, style: Style = VARIED) -> NDArray[np.float32]:
        """float32 [3, S, S], as the vision tower reads it."""
        return scale(render(scene, rng, self._images.image_size, style), self._images)


class Pictures(_World):
    """Pixels in [-1, 1] alone, for tokenizers of images. Half of them show several groups: objects are what is hard.

    What is to be drawn is plain, here and in `Mixture`.
    """

    def batch(self, step: int, process: int, num_processes: int) -> Tensor:
        rngs = self.rngs("picture", self._phase.batch_size, step, process, num_processes)
        scenes = [sample_scene(rng, "mixed" if rng.random() < 0.5 else None) for rng in rngs]
        return torch.from_numpy(np.stack([self.picture(*each, PLAIN) for each in zip(scenes, rngs, strict=True)]))


class Pairs(_World):
    """Pictures, captions and what stands on every patch, for the tower.

    Scenes come in families that differ from their first in one thing each: among unlike scenes a glance tells pairs
    apart, and what the loss does not ask for, such as sizes, would not be learnt.
    """

    def __init__(self, images: ImageSettings, seed: int, phase: Phase, rows: RowMaker, grid_side: int) -> None:
        super().__init__(images, seed, phase)
        self._rows, self._grid_side = rows, grid_side

    def batch(self, step: int, process: int, num_processes: int) -> tuple[Tensor, TextBatch, Tensor]:
        """float32 [B, 3, S, S]; captions; int64 [B, N, 3], the looks of `label_patches`."""
        rngs = self.rngs("picture", self._phase.batch_size, step, process, num_processes)
        places = range(process, self._phase.batch_size, num_processes)
        scenes = [self._scene(step, place, rng) for place, rng in zip(places, rngs, strict=True)]
        captions = collate_text([self._rows.text(f" {describe(scene)}") for scene in scenes])
        drawn = [compose(scene, rng, self._images.image_size) for scene, rng in zip(scenes, rngs, strict=True)]
        pixels = torch.from_numpy(np.stack([scale(picture, self._images) for picture, _ in drawn]))
        return pixels, captions, torch.tensor([label_patches(placed, self._grid_side) for _, placed in drawn])

    def _scene(self, step: int, place: int, rng: random.Random) -> Scene:
        family, number = divmod(place, _FAMILY)
        first = sample_scene(self.rng("family", step, family))
        return vary_scene(first, rng) if number else first


class Sentences(_World):
    """Text alone, for the language model: captions; and pictures in words, to be captioned and to be made from prompts.

    A model that takes captions from words in a grid, and lays words out in one, has less to learn from pictures.
    """

    def __init__(self, images: ImageSettings, seed: int, phase: Phase, rows: RowMaker, grid_side: int) -> None:
        super().__init__(images, seed, phase)
        self._rows, self._grid_side = rows, grid_side

    def batch(self, step: int, process: int, num_processes: int) -> TextBatch:
        rngs = self.rngs("text", self._phase.batch_size, step, process, num_processes)
        return collate_text([self._row(rng) for rng in rngs])

    def _row(self, rng: random.Random) -> TextRow:
        kind = rng.random()
        if kind > _READ + _WRITTEN:
            return text_row(self._rows, rng, False)
        scene = sample_scene(rng)
        is_read = kind < _READ
        placed = place(scene, rng, VARIED if is_read else PLAIN)
        spelt = f" {spell(scene, placed, self._grid_side, rng)}"
        if is_read:
            return self._rows.dialogue(spelt, describe(scene))
        return self._rows.dialogue(prompt_for(scene, rng), spelt)


class Mixture(_World):
    """The three kinds of data of a stage, in its ratio, in every batch."""

    def __init__(
        self, images: ImageSettings, seed: int, phase: Phase, rows: RowMaker, drawn: Drawn = ANY_PLAIN
    ) -> None:
        super().__init__(images, seed, phase)
        self._rows, self._drawn = rows, drawn

    def batch(self, step: int, process: int, num_processes: int) -> MixedBatch:
        understanding, text, generation = self._phase.ratio_at(step).split(self._phase.batch_size)
        turn = (step, process, num_processes)
        batch = MixedBatch()
        if rngs := self.rngs("understanding", understanding, *turn):
            batch = MixedBatch(understanding=self._understanding(rngs))
        if rngs := self.rngs("text", text, *turn):
            texts = [text_row(self._rows, rng, self._phase.stage == 3) for rng in rngs]
            batch = MixedBatch(batch.understanding, collate_text(texts))
        if rngs := self.rngs("generation", generation, *turn):
            batch = MixedBatch(batch.understanding, batch.text, self._generation(rngs))
        return batch

    def _understanding(self, rngs: list[random.Random]) -> UnderstandingBatch:
        rows, pictures = [], []
        for rng in rngs:
            scene = sample_scene(rng)
            question = QUESTIONS[0] if rng.random() < _USUAL_QUESTION else rng.choice(QUESTIONS)
            rows.append(self._rows.understanding(question, describe(scene)))
            pictures.append(self.picture(scene, rng))
        return collate_understanding(rows, pictures)

    def _generation(self, rngs: list[random.Random]) -> GenerationBatch:
        prompts, dropped, pictures = [], [], []
        for rng in rngs:
            prompt, scene = self._asked(rng)
            prompts.append(self._rows.image_prompt(prompt))
            dropped.append(rng.random() < DROP_PROMPT)
            pictures.append(self.picture(scene, rng, self._drawn.style))
        return collate_generation(prompts, dropped, pictures)

    def _asked(self, rng: random.Random) -> tuple[str, Scene]:
        """A prompt, and the scene that is drawn for it."""
        kinds = self._drawn.kinds
        scene = sample_scene(rng, rng.choices(list(kinds), list(kinds.values()))[0])
        prompt = prompt_for(scene, rng)
        if not self._drawn.is_usual:
            return prompt, scene
        said = parse(prompt)
        assert said is not None
        return prompt, said.to_usual_scene()


def text_row(rows: RowMaker, rng: random.Random, as_dialogue: bool) -> TextRow:
    """A caption of a scene that no picture shows; as a dialogue, one caption asked for by another."""
    scene = sample_scene(rng)
    if as_dialogue:
        return rows.dialogue(REPHRASE.format(phrase(scene, rng)), describe(scene))
    return rows.text(phrase(scene, rng))
