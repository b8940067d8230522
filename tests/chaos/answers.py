"""What the fast engine answers: a pure function of the request, so that the checker knows every answer beforehand."""

from __future__ import annotations

import hashlib

POISON = "poison"
Colour = tuple[int, int, int]


def caption_of(prompt: str, colour: Colour, seed: int) -> str:
    """The caption of a picture of one colour."""
    return f"{prompt} #{colour[0]:02x}{colour[1]:02x}{colour[2]:02x} with seed {seed}"


def colour_of(prompt: str, seed: int) -> Colour:
    """The colour of the picture that this prompt is drawn as."""
    digest = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    return digest[0], digest[1], digest[2]
