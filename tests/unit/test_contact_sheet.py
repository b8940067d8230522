"""A contact sheet holds every picture, whatever its shape and words."""

from __future__ import annotations

from PIL import Image

from orchestrator.contact_sheet import COLUMNS, Section, Tile, draw_contact_sheet


def test_every_tile_is_on_the_sheet() -> None:
    tiles = [Tile(Image.new("RGB", (10 + number, 40), (200, number, 0)), "words " * number) for number in range(13)]
    sheet = draw_contact_sheet("title", [Section("one", tiles), Section("none", [])])
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}
    assert {(200, number, 0) for number in range(13)} <= colours
    assert len(tiles) > 2 * COLUMNS


def test_words_without_spaces_and_unprintable_ones_fit() -> None:
    tile = Tile(Image.new("L", (500, 1)), "x" * 400 + "\x00\ud83c\n")
    assert draw_contact_sheet("t", [Section("s", [tile])]).width > 0
