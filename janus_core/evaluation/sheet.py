"""An evaluation to look at: pictures with the captions they were given, prompts with their images, right or wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from janus_core.evaluation.captions import describe
from janus_core.evaluation.evaluate import KEPT_PICTURES, Captioned, Drawn, Evaluation
from janus_core.evaluation.prompts import CATEGORIES

_COLUMNS = 6
_TILE, _GAP, _FRAME, _HEADING = 176, 10, 4, 34
_LINES, _LINE, _LETTERS = 7, 15, 30
_PAPER, _INK, _PALE = (250, 250, 248), (30, 30, 34), (120, 120, 126)
_RIGHT, _WRONG = (30, 150, 70), (215, 50, 40)


@dataclass(frozen=True)
class _Tile:
    picture: Image.Image | None
    is_right: bool
    text: str
    meant: str = ""


def draw_sheet(evaluation: Evaluation) -> Image.Image:
    """The first pictures of each kind, right ones in a green frame, wrong ones in a red one with what was meant."""
    sections = [
        ("Captions of fresh scenes", [_caption_tile(each) for each in evaluation.seen[:KEPT_PICTURES]]),
        ("Captions of held-out combinations", [_caption_tile(each) for each in evaluation.held_out[:KEPT_PICTURES]]),
    ]
    for category in CATEGORIES:
        drawn = [each for each in evaluation.drawn if each.category == category]
        title = f"Images: {category.replace('_', ' ')}"
        sections.append((title, [_drawn_tile(each) for each in drawn[:KEPT_PICTURES]]))
    return _draw_sections([section for section in sections if section[1]])


def _caption_tile(captioned: Captioned) -> _Tile:
    text = f"rejected: {captioned.rejected}" if captioned.said is None else captioned.said
    meant = "" if captioned.is_right else f"meant: {describe(captioned.scene)}"
    return _Tile(captioned.picture, captioned.is_right, text, meant)


def _drawn_tile(drawn: Drawn) -> _Tile:
    if drawn.is_right:
        seen = ""
    elif drawn.rejected:
        seen = f"rejected: {drawn.rejected}"
    else:
        seen = f"seen: {describe(drawn.seen)}" if drawn.seen else "seen: no scene"
    return _Tile(drawn.picture, drawn.is_right, drawn.prompt, seen)


def _draw_sections(sections: Sequence[tuple[str, list[_Tile]]]) -> Image.Image:
    row = _TILE + _LINES * _LINE + _GAP
    heights = [_HEADING + row * -(-len(tiles) // _COLUMNS) for _, tiles in sections]
    sheet = Image.new("RGB", (_COLUMNS * (_TILE + _GAP) + _GAP, sum(heights) + _GAP), _PAPER)
    top = _GAP
    for (title, tiles), height in zip(sections, heights, strict=True):
        ImageDraw.Draw(sheet).text((_GAP, top), title, _INK, ImageFont.load_default(18))
        for number, tile in enumerate(tiles):
            across, down = number % _COLUMNS, number // _COLUMNS
            _draw_tile(sheet, tile, _GAP + across * (_TILE + _GAP), top + _HEADING + down * row)
        top += height
    return sheet


def _draw_tile(sheet: Image.Image, tile: _Tile, left: int, top: int) -> None:
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), _RIGHT if tile.is_right else _WRONG)
    if tile.picture is not None:
        inside = _TILE - 2 * _FRAME
        sheet.paste(tile.picture.resize((inside, inside), Image.Resampling.NEAREST), (left + _FRAME, top + _FRAME))
    said = [(line, _INK) for line in _wrap(tile.text, 4)]
    meant = [(line, _PALE) for line in _wrap(tile.meant, _LINES - len(said))]
    for number, (line, colour) in enumerate(said + meant):
        pen.text((left, top + _TILE + 2 + _LINE * number), line, colour, font)


def _wrap(text: str, most: int) -> list[str]:
    """A model may say anything: what cannot be printed is a dot, and what is too long is cut."""
    printable = "".join(letter if letter.isprintable() else "\u00b7" for letter in text)
    return textwrap.wrap(printable, _LETTERS, max_lines=most, placeholder=" \u2026")
