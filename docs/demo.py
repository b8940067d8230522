"""The main job from beginning to end: `make demo`.

Photographs are captioned and prompts are drawn, through API, Postgres, Redis protocol, worker and S3 on this machine.
Everything is written to demo-output/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from orchestrator.contact_sheet import Section, Tile, draw_contact_sheet

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "demo-output"
PHOTOS = OUT / "photos"
CHECKPOINT = OUT / "random-checkpoint"
HOME = OUT / "home"
JANUS = str(Path(sys.executable).with_name("janus"))
PROMPTS = (
    "a cat asleep on a red sofa",
    "a lighthouse in a storm at night",
    "three green apples on a wooden table",
    "a small boat on a mountain lake",
    "an astronaut riding a horse",
    "a bowl of ramen, seen from above",
    "an old map of an island that does not exist",
    "a fox in the snow, watercolour",
)
# Photographs (some through a microscope or a telescope) that these packages ship as files.
SHIPPED_PHOTOS = {
    "skimage.data": (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
        "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png",
        "motorcycle_left.png", "motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn.datasets": ("images/china.jpg", "images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}  # fmt: skip


def main() -> None:
    print("Note: the model of this demo is a small, randomly initialised checkpoint made on the spot:")
    print("      what it says and draws means nothing; everything around it is the real system.")
    started = time.monotonic()
    OUT.mkdir(exist_ok=True)
    os.environ["JANUS_HOME"] = str(HOME)
    os.environ.pop("JANUS_URL", None)
    os.environ["JANUS_DTYPE"] = "float32"  # every run gives the same words and pictures, however its batches fall
    num_photos = write_photos(PHOTOS)
    make_checkpoint()
    (OUT / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")

    janus("up", "--model", str(CHECKPOINT))
    captions, images = OUT / "captions.jsonl", OUT / "images"
    model = ["--model", str(CHECKPOINT)]
    janus("caption", str(PHOTOS), *model, "--max-tokens", "24", "--out", str(captions))
    janus("generate", "--file", str(OUT / "prompts.txt"), *model, "--seed", "1", "--out", str(images))
    for job in json.loads(janus("jobs", "list", "--limit", "2", "--json", quiet=True)):
        janus("jobs", "verify", job["id"])
    sheet = draw_sheet(captions, images)
    print(f"\n{num_photos} photographs captioned, {len(PROMPTS)} prompts drawn in {time.monotonic() - started:.0f} s:")
    print(f"  {captions.relative_to(ROOT)}, {images.relative_to(ROOT)}/, {sheet.relative_to(ROOT)}")
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


def make_checkpoint() -> None:
    """The random checkpoint, unless a whole one is there."""
    if not (CHECKPOINT / "config.json").is_file():
        command = [sys.executable, "-m", "janus_core.checkpoints.random", str(CHECKPOINT)]
        subprocess.run(command, check=True)


def write_photos(folder: Path) -> int:
    """Copy the photographs out of the installed packages; how many."""
    folder.mkdir(exist_ok=True)
    paths = [(package, path) for package, paths in SHIPPED_PHOTOS.items() for path in paths]
    for package, path in paths:
        (folder / Path(path).name).write_bytes(files(package).joinpath(path).read_bytes())
    return len(paths)


def draw_sheet(captions: Path, images: Path) -> Path:
    """One picture of everything that came back."""
    captioned = [
        Tile(PHOTOS / result["id"], result.get("caption") or str(result.get("failure")))
        for result in read_lines(captions)
    ]
    drawn = [
        Tile(images / result["images"][0]["file"], result["prompt"]) for result in read_lines(images / "results.jsonl")
    ]
    title = "Janus Batch demo (random weights: the words and drawings mean nothing)"
    sections = [Section("photographs and their captions", captioned), Section("prompts and their images", drawn)]
    path = OUT / "contact-sheet.png"
    draw_contact_sheet(title, sections).save(path)
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
