"""The main job from beginning to end: `make demo`.

Scenes that no model has seen are captioned and prompts are drawn by the models that come with the package, through API,
Postgres, Redis protocol, worker and S3 on this machine. Everything is written to demo-output/.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from janus_core.evaluation.captions import parse
from janus_core.evaluation.detector import detect
from janus_core.evaluation.partial import matches
from janus_core.evaluation.prompts import spread_prompts
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import Scene, sample_scene
from janus_core.evaluation.scores import read_answer
from orchestrator.contact_sheet import TILE_PIXELS, Section, Tile, draw_contact_sheet

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo-output"
SCENES = OUT / "scenes"
PROMPTS = OUT / "prompts.txt"
HOME = OUT / "home"
JANUS = str(Path(sys.executable).with_name("janus"))
MODELS = ("janus-tiny", "janusflow-tiny")
NUM_SCENES = NUM_PROMPTS = 18


def main() -> None:
    started = time.monotonic()
    OUT.mkdir(exist_ok=True)
    os.environ["JANUS_HOME"] = str(HOME)
    os.environ.pop("JANUS_URL", None)
    os.environ["JANUS_DTYPE"] = "float32"  # every run gives the same words and pictures, however its batches fall
    rng = random.Random("demo")
    scenes = write_scenes(rng)
    PROMPTS.write_text("\n".join(prompt for _, prompt in spread_prompts(NUM_PROMPTS, rng)) + "\n")

    janus("up", "--only", *(word for model in MODELS for word in ("--model", model)))
    sections = []
    for model in MODELS:
        captions, images = OUT / model / "captions.jsonl", OUT / model / "images"
        given = ("--model", model, "--existing", "overwrite")
        janus("caption", str(SCENES), *given, "--out", str(captions))
        janus("generate", "--file", str(PROMPTS), *given, "--seed", "1", "--out", str(images))
        sections += [caption_section(model, captions, scenes), image_section(model, images)]
    for job in json.loads(janus("jobs", "list", "--limit", str(2 * len(MODELS)), "--json", quiet=True)):
        janus("jobs", "verify", job["id"])
    sheet = OUT / "contact-sheet.png"
    draw_contact_sheet("Janus Batch demo: small models and their sample world", sections).save(sheet)
    seconds = time.monotonic() - started
    print(
        f"\n{NUM_SCENES} pictures captioned, {NUM_PROMPTS} prompts drawn by {' and '.join(MODELS)} in {seconds:.0f} s:"
    )
    print(*(f"  {section.title}" for section in sections), sep="\n")
    print(f"Look at {sheet.relative_to(ROOT)}; everything else is in {OUT.relative_to(ROOT)}/.")
    print("The local stack stays up; to stop it: JANUS_HOME=demo-output/home .venv/bin/janus down")


def janus(*arguments: str, quiet: bool = False) -> str:
    """Run the command line as a person would; its output."""
    if not quiet:
        shown = [str(Path(a).relative_to(ROOT)) if a.startswith(str(ROOT)) else a for a in arguments]
        print(f"\n$ janus {' '.join(shown)}", flush=True)
    done = subprocess.run([JANUS, *arguments], stdout=subprocess.PIPE if quiet else None, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: janus {arguments[0]} ended with {done.returncode}")
    return done.stdout or ""


def write_scenes(rng: random.Random) -> dict[str, Scene]:
    """Pictures to be captioned, and by file name what they show."""
    SCENES.mkdir(exist_ok=True)
    scenes = {f"{number:02}.png": sample_scene(rng) for number in range(1, NUM_SCENES + 1)}
    for name, scene in scenes.items():
        render(scene, rng).save(SCENES / name)
    return scenes


def caption_section(model: str, captions: Path, scenes: dict[str, Scene]) -> Section:
    """The pictures with their captions."""
    tiles, num_right = [], 0
    for result in read_lines(captions):
        said, scene = result.get("caption") or str(result.get("failure")), scenes[result["id"]]
        is_right = read_answer(said) == scene
        num_right += is_right
        tiles.append(Tile(enlarged(SCENES / result["id"]), said if is_right else f"wrong: {said}"))
    return Section(f"{model}: {num_right} of {len(tiles)} captions say exactly what the picture shows", tiles)


def image_section(model: str, images: Path) -> Section:
    """The prompts with their images."""
    tiles, num_right = [], 0
    for result in read_lines(images / "results.jsonl"):
        file = images / result["images"][0]["file"]
        asked, seen = parse(result["prompt"]), detect(Image.open(file))
        is_right = asked is not None and seen is not None and matches(asked, seen)
        num_right += is_right
        tiles.append(Tile(enlarged(file), result["prompt"] if is_right else f"wrong: {result['prompt']}"))
    return Section(f"{model}: {num_right} of {len(tiles)} images show what the prompt asks for", tiles)


def enlarged(path: Path) -> Image.Image:
    """Every pixel a square."""
    picture: Image.Image = Image.open(path).convert("RGB")
    return picture.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.NEAREST)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
