"""A log as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from janus_core.training.curves import draw_curves


def test_a_log_becomes_a_picture(tmp_path: Path) -> None:
    lines = [
        {"step": step, "loss": 1 / step, "text": 2 / step, "gradient_norm": 1.0, "learning_rate": 1e-3, "seconds": 9.0}
        for step in (20, 40, 60)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    draw_curves(tmp_path / "log.jsonl", tmp_path / "new" / "curves.png", "stage1")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * picture.height, "three curves side by side"


def test_an_empty_log_is_no_picture(tmp_path: Path) -> None:
    draw_curves(tmp_path / "none.jsonl", tmp_path / "curves.png", "stage1")
    assert not (tmp_path / "curves.png").exists()
