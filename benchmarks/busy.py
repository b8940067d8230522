"""Whether the engine waits for the system: python benchmarks/busy.py

Two captioning jobs with answers of different length and two of generation run at once through API, Postgres, Valkey, S3
and one worker, whose engine takes 10 ms for a step of up to sixteen rows. Prints, for the time from the first step to
the last, the share that the engine was in a step, and how many rows a step had.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.stepping_worker import BOOK  # noqa: E402
from benchmarks.system import running, write_photos  # noqa: E402

CAPTIONS, IMAGES = 600, 150


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as temporary:
        folder = Path(temporary)
        book = folder / "book"
        os.environ[BOOK] = str(book)
        photos = write_photos(folder / "photos", CAPTIONS)
        with running(folder, "stepping", "benchmarks.stepping_worker") as client:
            prompts = [f"prompt {number}" for number in range(IMAGES)]
            jobs = [
                client.caption(photos, model="stepping", max_tokens=32, reuse=False),
                client.caption(photos, model="stepping", max_tokens=96, reuse=False),
                client.generate(prompts, model="stepping", reuse=False),
                client.generate(prompts, model="stepping", seed=1, reuse=False),
            ]
            for job in jobs:
                view = job.wait(900)
                assert view.items.results == view.items.total, view
            time.sleep(1)
        steps = [line.split() for line in book.read_text(encoding="ascii").splitlines()]
    began, ended = float(steps[0][0]), float(steps[-1][1])
    busy = sum(float(end) - float(start) for start, end, _ in steps)
    rows = sum(int(count) for *_, count in steps) / len(steps)
    longest = max(float(after[0]) - float(before[1]) for before, after in pairwise(steps))
    print(f"{len(steps)} steps in {ended - began:.1f} s: busy {busy / (ended - began):.1%}, {rows:.1f} rows a step")
    print(f"longest wait between two steps {longest:.2f} s")


if __name__ == "__main__":
    main()
