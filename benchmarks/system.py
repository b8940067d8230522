"""What the system costs around the model: `make bench`.

Jobs run through API, Postgres, Valkey, S3 and one worker whose engine answers at once. Prints a table and writes it to
benchmarks/system_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.client import Client, Job  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

ROUNDS = 3
CASES = (("caption", 2000), ("generate", 500))


def main() -> None:
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="janus-bench-") as folder,
        running(Path(folder), "instant", "benchmarks.instant_worker") as client,
    ):
        photos = write_photos(Path(folder) / "photos", 2000)
        for kind, num_items in CASES:
            submit: Callable[[], Job] = (
                (lambda: client.caption(photos, model="instant", reuse=False))
                if kind == "caption"
                else (
                    lambda n=num_items: client.generate([f"prompt {i}" for i in range(n)], model="instant", reuse=False)
                )
            )
            rows.append((kind, num_items, *measure(submit)))
            print(rows[-1], flush=True)
    report = render(rows)
    name = f"system_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
    (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")
    print(report)


def measure(submit: Callable[[], Job]) -> tuple[list[float], list[float]]:
    """Seconds to submit (uploads included), and items per second from then to the end, of each round."""
    submitted, rates = [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        job = submit()
        accepted = time.monotonic()
        view = job.wait(600)
        submitted.append(accepted - began)
        rates.append(view.items.total / (time.monotonic() - accepted))
        assert view.items.results == view.items.total, view
    return submitted, rates


@contextmanager
def running(folder: Path, model: str, worker: str) -> Iterator[Client]:
    """The local servers, the system and one worker of this module, which serves this model."""
    servers = Servers(folder / "servers")
    servers.start()
    system = System(servers.environment(), folder, model, **product_settings())
    try:
        system.start(0)
        system.run("worker", worker)
        system.wait_for_workers(1)
        with system.client() as client:
            yield client
    finally:
        system.stop()
        servers.stop()


def write_photos(folder: Path, count: int) -> Path:
    """JPEG files of 512 x 384 px, about 60 KB each, all different."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (384, 512, 3), np.uint8)
    for number in range(count):
        Image.fromarray(np.roll(base, number, axis=1)).save(folder / f"{number:05d}.jpg", quality=60)
    return folder


def render(rows: list[tuple[str, int, list[float], list[float]]]) -> str:
    lines = [
        "# The system around the model",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `make bench`: {cpu_name()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}. Everything, client included, runs on these cores; the engine answers at once "
        f"(captions of 400 characters, pictures of 384 x 384 px). Median of {ROUNDS} rounds, "
        "with the least and the most.",
        "",
        "| kind | items | submit with uploads, s | items/s from submission to the end | ms an item |",
        "|---|---|---|---|---|",
    ]
    for kind, num_items, submitted, rates in rows:
        cost = 1000 / statistics.median(rates)
        lines.append(f"| {kind} | {num_items} | {spread(submitted)} | {spread(rates)} | {cost:.1f} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def cpu_slug() -> str:
    """As files are named after it."""
    return re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")


def cpu_name() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


if __name__ == "__main__":
    main()
