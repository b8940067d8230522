"""docs/recipes.md as it stands: every block of it, in order, in one folder, against a real system."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.system import System

pytestmark = pytest.mark.services
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
JANUS = 'janus() { "$PYTHON" -c "from orchestrator.cli.main import app; app()" "$@"; }\n'


def test_every_recipe_runs(fast_system: System, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} == {"sh", "python"}
    write_photos(tmp_path / "photos")
    root = str(Path(__file__).parents[2])
    key = fast_system.make_key("cooks")
    environment = fast_system.environment | {
        "JANUS_URL": fast_system.url,
        "JANUS_API_KEY": key,
        "PYTHON": sys.executable,
    }
    for language, text in blocks:
        command = ["bash", "-euc", JANUS + text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if "--existing skip" in text:
            assert "each of 7 items has its result" in done.stderr
    assert len(list((tmp_path / "photos").rglob("*.txt"))) == 7
    assert len((tmp_path / "may.jsonl").read_bytes().splitlines()) == 7


def write_photos(folder: Path) -> None:
    for number in range(7):
        path = folder / ("new" if number > 4 else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number * 30, 20, 20)).save(path)
