"""From nothing to the first answer: a fresh process loads the 1B's weights and captions one picture in one token.

    python benchmarks/start.py [--rounds 3] [--keep FOLDER]

Ours and transformers' in turns, each in processes of its own, after one of each that is not counted: so files lie in
the page cache, and our compiled steps in torch's. Prints seconds, the ratio, and the peak of each process beside the
size of the weights.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engine import checkpoint  # noqa: E402

OURS = """
import sys
from PIL import Image
from janus_core import CaptionRequest, load_engine
engine = load_engine(sys.argv[1])
print(engine.caption([CaptionRequest(Image.new("RGB", (384, 384)), "Describe this image.", 1)])[0].token_ids)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

THEIRS = """
import sys
import torch
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor
processor = JanusProcessor.from_pretrained(sys.argv[1])
model = JanusForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
question = "<|User|>: <image_placeholder>\\nDescribe this image.\\n\\n<|Assistant|>:"
given = processor(text=question, images=Image.new("RGB", (384, 384)), generation_mode="text", return_tensors="pt")
given["pixel_values"] = given["pixel_values"].to(torch.bfloat16)
print(model.generate(**given, max_new_tokens=1, do_sample=False)[0, -1].item())
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="where the checkpoint lies, or is written to and stays")
    options = parser.parse_args()
    with checkpoint(options.keep) as folder:
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        rounds = [(_run(OURS, folder), _run(THEIRS, folder)) for _ in range(options.rounds + 1)][1:]
    ratios = [theirs[0] / ours[0] for ours, theirs in rounds]
    for name, runs in zip(("janus-batch", "transformers"), zip(*rounds, strict=True), strict=True):
        seconds = statistics.median(run[0] for run in runs)
        peak = max(run[1] for run in runs)
        print(f"{name:14}{seconds:8.1f} s{peak / 1e9:8.2f} GB, {peak / weights:.2f} of the weights")
    print(f"theirs takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})")


def _run(program: str, folder: Path) -> tuple[float, int]:
    """Seconds, and the largest resident size in bytes."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return time.monotonic() - began, int(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    main()
