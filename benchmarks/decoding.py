"""What an image costs before the engine sees it: python benchmarks/decoding.py

Files of real sizes, decoded and brought to 384 px on one core: by transformers' Pillow processor, in this process as a
decoder does it, and by a decoder process as a worker does it. In turns; writes benchmarks/decoding_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug, spread  # noqa: E402
from janus_core.processing.images import ImageSettings, fit, prepare  # noqa: E402
from workers.decoder_pool import DecoderPool  # noqa: E402
from workers.images import decode_image  # noqa: E402

SIZES = ((512, 512), (1024, 1024), (4000, 3000))
SETTINGS = ImageSettings(384, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
FIT = asdict(SETTINGS)
ROUNDS, SECONDS = 5, 0.5
HEAD = """# What an image costs before the engine sees it

`python benchmarks/decoding.py`, {date}: {machine}, one of them used. Milliseconds an image, decoded and brought to 384
px, medians of {rounds} rounds in turns, with the least and the most; *differs*: the largest difference of a pixel
value, of 255, from transformers'.

| file | transformers | here, in one process | in a decoder process | differs |
|---|---|---|---|---|"""


def main() -> None:
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    theirs = JanusImageProcessorPil(
        size={"height": 384, "width": 384}, min_size=14, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    machine = f"{cpu_name()}, {os.cpu_count()} cores"
    lines = [HEAD.format(date=f"{datetime.now(UTC):%Y-%m-%d}", machine=machine, rounds=ROUNDS)]
    with closing(DecoderPool(processes=1, memory_bytes=3 * 2**29, seconds=10)) as pool:
        for kind in ("JPEG", "PNG"):
            for size in SIZES:
                data = _file(size, kind)
                ways: dict[str, Callable[[], object]] = {
                    "theirs": lambda data=data: theirs(Image.open(io.BytesIO(data)).convert("RGB")),
                    "here": lambda data=data: prepare(
                        fit(decode_image(data, place="it", max_pixels=10**8), SETTINGS), SETTINGS
                    ),
                    "decoder": lambda data=data: prepare(
                        pool.decode(data, place="it", max_pixels=10**8, fit=FIT), SETTINGS
                    ),
                }
                times: dict[str, list[float]] = {name: [] for name in ways}
                for _ in range(ROUNDS):
                    for name, way in ways.items():
                        times[name].append(_milliseconds(way))
                cells = " | ".join(spread(each) for each in times.values())
                difference = np.abs(np.asarray(ways["theirs"]()["pixel_values"])[0] - ways["decoder"]()).max() * 127.5
                lines.append(f"| {kind} {size[0]} x {size[1]}, {len(data) / 1e6:.1f} MB | {cells} | {difference:.1f} |")
                print(lines[-1], flush=True)
    report = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / f"decoding_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md").write_text(report, encoding="utf-8")


def _file(size: tuple[int, int], kind: str) -> bytes:
    """A gradient with some noise, which compresses about as a photograph does."""
    rng = np.random.default_rng(0)
    base = np.asarray(Image.linear_gradient("L").resize(size).convert("RGB")).astype(np.int16)
    noisy = (base + rng.normal(0, 6, (size[1], size[0], 3))).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _milliseconds(way: Callable[[], object]) -> float:
    """The median of as many times as fit into half a second, three at the least."""
    taken: list[float] = []
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(taken) < 3:
        began = time.perf_counter()
        way()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


if __name__ == "__main__":
    main()
