"""The engine beside transformers and the published loop: the table behind `janus bench engine`.

    python benchmarks/engine.py [--rows NAME ...] [--rounds 5] [--keep FOLDER]

Random weights of Janus-Pro-1B's shape in bfloat16, on the CPU; every row is one `janus bench engine` of its own, whose
contenders take turns. Writes benchmarks/engine_<cpu>_<yyyymm>.md, line by line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from janus_core.checkpoints.random import SHAPES, write_random_checkpoint  # noqa: E402

SHAPE = "janus-pro-1b"
HEAD = """# The engine beside its peers

`python benchmarks/engine.py`, {date}: {machine}; {libraries}.

Random bfloat16 weights of Janus-Pro-1B's shape unless a row says otherwise, the peers' as `from_pretrained` gives them.
Rounds, as many as the row says, after one to warm up, all in turns. How many times faster we are is the median of their
ratios, with the least and the most. *Official-style* is the published loop written anew: one prompt in parallel copies,
a growing cache. Images: a step behind 276 tokens, where an average one of 576 stands. Captions: prompts of 804 tokens,
as random checkpoints have a token for every letter. JanusFlow: prompts of 64 tokens, latents without the VAE; the
published loop runs each prompt anew with every step. Equal tokens: the share of greedy tokens before each answer's
first that differs from transformers'. Of the roofline: the bytes of weights and cache over the bandwidth, or the FLOPs
over the best matrix rate where that is more, both probed in the same round, by the time taken; of 8-bit weights the
bytes alone.

| work | rounds | here | than transformers | than official-style | equal tokens | step / roofline | prompts / it |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """by: what is compared, the time of a step, of whole answers, or of the part. options: of `janus bench engine`."""

    name: str
    what: str
    by: str
    options: tuple[str, ...]


def _both(name: str, what: str, by: str, *options: str) -> list[Row]:
    """In bfloat16, and with 8-bit weights beside transformers alone."""
    return [
        Row(name, what, by, options),
        Row(f"{name}-int8", f"{what}, int8", by, (*options, "--quantize=int8", "--peer=transformers")),
    ]


_CAPTIONS = ("--task=caption", "--batch=8", "--tokens=9", "--answer-tokens=64")
_MIXED = ("--task=mixed", "--batch=32", "--tokens=256", "--peer=transformers")
_FLOW = ("--shape=janusflow-1.3b", "--batch=2", "--prompt-tokens=64", "--tokens=2", "--peer=official-style")
_NARROW = ("--shape=narrow", "--kernels=compiled", "--tokens=64")

ROWS = [
    *_both("image-1", "an image", "step", "--batch=1", "--tokens=16"),
    *_both("image-4", "4 images at once", "step", "--batch=4", "--tokens=12"),
    *_both("image-16", "16 images at once", "step", "--batch=16", "--tokens=6"),
    *_both("caption-8", "8 captions of 64 tokens", "whole", *_CAPTIONS),
    Row("mixed", "32 captions of 8 to 256 tokens, theirs in eights", "whole", _MIXED),
    Row("flow", "JanusFlow: 2 steps of 2 prompts", "whole", _FLOW),
    Row("tower", "the vision tower, 2 pictures", "whole", ("--task=encode", "--batch=2", "--peer=transformers")),
    Row("decoder", "2 pictures from codes", "whole", ("--task=decode", "--batch=2", "--peer=transformers")),
    Row("host-image", "24 layers of width 64, compiled: an image", "step", _NARROW),
    Row("host-caption", "24 layers of width 64, compiled: a caption", "step", (*_NARROW, "--task=caption")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], help="all unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where the checkpoint lies, or is written to and stays")
    options = parser.parse_args()
    out = ROOT / "benchmarks" / f"engine_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    lines = _lines_of(out)
    with checkpoint(options.keep) as folder:
        for row in ROWS:
            if options.rows is None or row.name in options.rows:
                lines[row.what] = _line(row, _measure(row, folder, options.rounds))
                print(lines[row.what], flush=True)
                kept = [lines[one.what] for one in ROWS if one.what in lines]
                out.write_text(_report(kept), encoding="utf-8")


def _lines_of(report: Path) -> dict[str, str]:
    """The table's lines by their work, of rows that are not measured again."""
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    return {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}


@contextmanager
def checkpoint(keep: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as temporary:
        folder = keep or Path(temporary) / SHAPE
        if not (folder / "config.json").exists():
            write_random_checkpoint(folder, SHAPES[SHAPE])
        yield folder


def _measure(row: Row, folder: Path, rounds: int) -> dict[str, Any]:
    model = [] if any(option.startswith("--shape") for option in row.options) else [f"--model={folder}"]
    began = time.monotonic()
    command = [sys.executable, "-m", "janus_core.bench", *model, *row.options, f"--rounds={rounds}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout)
    print(f"{row.name}: {time.monotonic() - began:.0f} s {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def _line(row: Row, figures: dict[str, Any]) -> str:
    ours = figures["contenders"]["janus-batch"]
    if row.by == "step":
        absolute = f"{ours['step_ms']:.1f} ms a step"
    elif "seconds" in ours:
        absolute = f"{ours['seconds']:.2f} s"
    else:
        absolute = f"{ours['answers_per_hour'] / 3600:.2f} a second"
    cells = [row.what, str(figures["rounds"]), absolute]
    for peer in ("transformers", "official-style"):
        against = figures["against"].get(peer)
        cells.append(_ratio(against[row.by], "x") if against else "")
    agreed = figures["against"].get("transformers", {}).get("equal_tokens")
    cells.append("" if agreed is None else f"{agreed:.0%}")
    roofline = figures.get("roofline", {})
    for part in ("step", "first"):
        cells.append(_ratio(roofline[part], "") if roofline.get(part, {}).get("median") else "")
    return "| " + " | ".join(cells) + " |"


def _ratio(ratio: dict[str, float], unit: str) -> str:
    return f"**{ratio['median']:.2f}{unit}** ({ratio['least']:.2f} to {ratio['most']:.2f})"


def _report(lines: list[str]) -> str:
    machine = f"{cpu_name()}, {os.cpu_count()} cores"
    libraries = f"Python {sys.version.split()[0]}, torch {version('torch')}, transformers {version('transformers')}"
    head = HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine, libraries=libraries)
    return head + "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
