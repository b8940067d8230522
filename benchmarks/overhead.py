"""What the system adds to the engine, and where it goes: python benchmarks/overhead.py

Captions the same pictures with janus-tiny twice in each round: by the engine alone, from files, in this process; and as
a job through client, API, queue, database and store, whose worker runs the same engine. One thread for torch in both.
Prints the difference an item, and the processor time of every process, and writes
benchmarks/overhead_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.system import cpu_name, cpu_slug, spread, write_photos  # noqa: E402
from janus_core import CaptionRequest, load_engine  # noqa: E402
from janus_core.engine.engine import Engine  # noqa: E402
from orchestrator.client import Client  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from orchestrator.settings import DEFAULT_MODEL  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

ITEMS, TOKENS, ROUNDS = 2000, 32, 5
PROMPT = "Describe this image."


def main() -> None:
    engine = load_engine(DEFAULT_MODEL, device="cpu", dtype="float32")
    alone, through, spent = [], [], []
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as temporary, running(Path(temporary)) as (client, system):
        photos = write_photos(Path(temporary) / "photos", ITEMS)
        for number in range(ROUNDS + 1):
            seconds = caption_alone(engine, photos)
            before = processor_seconds(system)
            took = caption_through(client, photos, seed=number)
            if number:  # the first one warms up
                alone.append(1000 * seconds / ITEMS)
                through.append(1000 * took / ITEMS)
                after = processor_seconds(system)
                spent.append({name: 1000 * (after[name] - before[name]) / ITEMS for name in after})
            print(f"{number}: alone {seconds:.1f} s, as a job {took:.1f} s", flush=True)
    report = render(alone, through, spent)
    (ROOT / "benchmarks" / f"overhead_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md").write_text(report, encoding="utf-8")
    print(report)


def caption_alone(engine: Engine, photos: Path) -> float:
    began = time.monotonic()
    requests = [
        CaptionRequest(Image.open(path).convert("RGB"), PROMPT, max_new_tokens=TOKENS)
        for path in sorted(photos.iterdir())
    ]
    answers = engine.caption(requests)
    assert len(answers) == ITEMS
    return time.monotonic() - began


def caption_through(client: Client, photos: Path, *, seed: int) -> float:
    """From the call to the last result; the pictures are sent in the first round alone, as the client knows them."""
    began = time.monotonic()
    job = client.caption(photos, model=DEFAULT_MODEL, prompt=PROMPT, max_tokens=TOKENS, seed=seed, reuse=False)
    view = job.wait(900)
    assert view.items.results == view.items.total == ITEMS, view
    return time.monotonic() - began


@contextmanager
def running(folder: Path) -> Iterator[tuple[Client, Processes]]:
    """The whole system with one worker, and its processes by their names."""
    servers = Servers(folder / "servers")
    servers.start()
    system = System(servers.environment(), folder, DEFAULT_MODEL, **product_settings())
    try:
        system.start(1)
        pids = {name: process.pid for name, process in system.processes.items()}
        pids |= {server.name: server.pid or 0 for server in servers.all} | {"client": os.getpid()}
        with system.client() as client:
            yield client, pids
    finally:
        system.stop()
        servers.stop()


Processes = dict[str, int]


def processor_seconds(processes: Processes) -> dict[str, float]:
    """Of each process and its children, since they began."""
    return {name: _tree_seconds(psutil.Process(pid), name == "client") for name, pid in processes.items()}


def _tree_seconds(process: psutil.Process, alone: bool) -> float:
    family = [process] if alone else [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:4]) if each is process else sum(each.cpu_times()[:2]) for each in family)


def render(alone: list[float], through: list[float], spent: list[dict[str, float]]) -> str:
    added = [whole - engine for whole, engine in zip(through, alone, strict=True)]
    lines = [
        "# What the system adds to the engine",
        "",
        f"`python benchmarks/overhead.py`, {datetime.now(UTC):%Y-%m-%d}: {cpu_name()}, {os.cpu_count()} cores.",
        f"{ITEMS} pictures of 512 x 384 px (JPEG, 60 KB) captioned by `{DEFAULT_MODEL}` in float32, one thread",
        "for torch: by the engine alone, from files, and as a job through client, API, queue, database and store. In",
        f"turns; median of {ROUNDS} rounds, with the least and the most.",
        "",
        "| | ms an item |",
        "|---|---|",
        f"| the engine alone, decoding and scaling included | {spread(alone)} |",
        f"| as a job | {spread(through)} |",
        f"| what the system adds | **{spread(added)}** |",
        "",
        "Processor time of each process, which runs beside the engine where there are more cores:",
        "",
        "| process | ms an item |",
        "|---|---|",
        *(f"| {name} | {spread([each[name] for each in spent])} |" for name in spent[0]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
