"""A contact sheet: pictures in a grid, each with its words below, as one image to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE_PIXELS = 224
TEXT_PIXELS = 64
GAP_PIXELS = 12
COLUMNS = 6
PAPER, INK, PALE = (250, 250, 248), (30, 30, 34), (110, 110, 116)


@dataclass(frozen=True)
class Tile:
    """One picture with its words."""

    image: Image.Image | Path
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and its tiles."""

    title: str
    tiles: Sequence[Tile]


def draw_contact_sheet(title: str, sections: Sequence[Section]) -> Image.Image:
    """Lay out sections below each other; words that do not fit are cut with an ellipsis."""
    width = COLUMNS * (TILE_PIXELS + GAP_PIXELS) + GAP_PIXELS
    heights = [_section_height(section) for section in sections]
    sheet = Image.new("RGB", (width, 70 + sum(heights) + GAP_PIXELS), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PIXELS, 18), title, INK, ImageFont.load_default(26))
    top = 70
    for section, height in zip(sections, heights, strict=True):
        draw.text((GAP_PIXELS, top), section.title, PALE, ImageFont.load_default(18))
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, COLUMNS)
            left = GAP_PIXELS + column * (TILE_PIXELS + GAP_PIXELS)
            _draw_tile(sheet, tile, left, top + 34 + row * (TILE_PIXELS + TEXT_PIXELS + GAP_PIXELS))
        top += height
    return sheet


def _section_height(section: Section) -> int:
    rows = -(-len(section.tiles) // COLUMNS)
    return 34 + rows * (TILE_PIXELS + TEXT_PIXELS + GAP_PIXELS)


def _draw_tile(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    image = tile.image if isinstance(tile.image, Image.Image) else Image.open(tile.image)
    picture = ImageOps.fit(image.convert("RGB"), (TILE_PIXELS, TILE_PIXELS))
    sheet.paste(picture, (left, top))
    font = ImageFont.load_default(14)
    for number, line in enumerate(_wrap(tile.text, font, lines=TEXT_PIXELS // 18)):
        ImageDraw.Draw(sheet).text((left, top + TILE_PIXELS + 6 + 18 * number), line, INK, font)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, lines: int) -> list[str]:
    """At most `lines` lines that fit a tile, broken between words where there are any."""
    wrapped: list[str] = []
    rest = "".join(c if c.isprintable() else "\u00b7" for c in text).strip()
    while rest and len(wrapped) < lines:
        end = len(rest)
        while font.getlength(rest[:end]) > TILE_PIXELS:
            end -= 1
        if end < len(rest) and " " in rest[:end].strip():
            end = rest.rindex(" ", 0, end) + 1
        wrapped.append(rest[:end].strip())
        rest = rest[end:]
    if rest and wrapped:
        wrapped[-1] = wrapped[-1][:-1] + "\u2026"
    return wrapped
