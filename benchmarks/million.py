"""A million items from one manifest to their results: python benchmarks/million.py [--items 100000 1000000]

The whole local system with the product's own settings and one worker whose engine answers at once; the pictures are of
16 x 16 px, so that what is measured is not their decoding. Jobs of these sizes one after the other, then, beside them,
plain Celery with a message for every item on the same broker, whose task does nothing at all. Prints rates, processor
time an item and the most memory of every process after each job, and writes benchmarks/million_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
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
from pathlib import Path

import httpx
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from orchestrator.client import Client, Job  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

COLOURS = itertools.count()  # of 24 bits; no two pictures are alike
BUNDLED = 40_000  # pictures in an object, some 3 MB
OURS = ("api", "dispatcher", "worker")


@dataclass
class Measured:
    """One job. Seconds of wall time; of processor time an item and peak memory, by process."""

    num_items: int
    read_seconds: float
    run_seconds: float
    processor_ms: dict[str, float]
    peak_megabytes: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.read_seconds + self.run_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--shard-items", type=int, default=512)
    parser.add_argument("--messages", type=int, default=50_000, help="of plain Celery; 0 leaves it out")
    parser.add_argument("--dry", action="store_true", help="write no file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder, running(Path(folder)) as (client, system, pids):
        measured = []
        for num_items in options.items:
            measured.append(
                measure(system, client, num_items, options.shard_items, Path(folder) / "manifest.jsonl", pids)
            )
            print(measured[-1], flush=True)
        peer = plain_celery(system, options.messages) if options.messages else None
    report = render(measured, options.shard_items, peer, options.messages)
    print(report)
    if not options.dry:
        name = f"million_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md"
        (ROOT / "benchmarks" / name).write_text(report, encoding="utf-8")


@contextmanager
def running(folder: Path) -> Iterator[tuple[Client, System, dict[str, int]]]:
    """The whole system with one worker, and its processes by their names."""
    servers = Servers(folder / "servers")
    servers.start()
    system = System(servers.environment(), folder, "instant", **product_settings())
    try:
        system.start(0)
        system.run("worker", "benchmarks.instant_worker", IMAGE_SIZE="16", MAX_ROWS="64")
        system.wait_for_workers(1)
        pids = {name: process.pid for name, process in system.processes.items()}
        pids |= {server.name: server.pid or 0 for server in servers.all}
        with system.client() as client:
            yield client, system, pids
    finally:
        system.stop()
        servers.stop()


def measure(
    system: System, client: Client, num_items: int, shard_items: int, manifest: Path, pids: dict[str, int]
) -> Measured:
    before = processor_seconds(pids)
    job, began = submit(system, client, num_items, shard_items, manifest)
    while job.refresh().state == "accepted":
        time.sleep(0.05)
    read = time.monotonic()
    while not (view := job.refresh()).state.ended:
        time.sleep(0.25)
    ended = time.monotonic()
    assert (view.state, view.items.results) == ("completed", num_items), view
    spent = {name: value - before[name] for name, value in processor_seconds(pids).items()}
    return Measured(
        num_items,
        read - began,
        ended - read,
        {name: 1000 * seconds / num_items for name, seconds in spent.items()},
        {name: peak_megabytes(pids[name]) for name in OURS},
    )


def submit(system: System, client: Client, num_items: int, shard_items: int, manifest: Path) -> tuple[Job, float]:
    """An upload as the client makes one, and its job; when the job was asked for.

    Small pictures travel many to an object, and a manifest names parts of objects with their digests. All are computed,
    as no two are equal.
    """
    headers = {"Authorization": f"Bearer {system.admin_key}"}
    with httpx.Client(base_url=system.url, headers=headers, timeout=600) as http:
        upload = http.post("/v1/uploads").raise_for_status().json()["id"]
        with manifest.open("w") as file:
            for number, pictures in enumerate(batched(range(num_items), BUNDLED)):
                name, data = f"{number:06}.bundle", bytearray()
                for index in pictures:
                    picture = png(next(COLOURS))
                    part = {"object": name, "offset": len(data), "num_bytes": len(picture)}
                    part |= {"sha256": hashlib.sha256(picture).hexdigest()}
                    file.write(json.dumps({"id": f"photos/{index:08d}.png", "image": part}) + "\n")
                    data += picture
                put(http, upload, name, bytes(data))
        put(http, upload, "manifest.jsonl", manifest)
        began = time.monotonic()
        given = {"upload": upload, "manifest": "manifest.jsonl"}
        body = {"kind": "caption", "model": "instant", "input": given, "shard_items": shard_items}
        return client.attach(http.post("/v1/jobs", json=body).raise_for_status().json()["id"]), began


def png(colour: int) -> bytes:
    """16 x 16 px of one colour of 24 bits."""
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (colour >> 16, colour >> 8 & 255, colour & 255)).save(data, "PNG")
    return data.getvalue()


def batched(numbers: range, size: int) -> Iterator[range]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def put(http: httpx.Client, upload: str, name: str, data: bytes | Path) -> None:
    urls = http.post(f"/v1/uploads/{upload}/urls", json={"names": [name]}).raise_for_status().json()["urls"]
    if isinstance(data, bytes):
        httpx.put(urls[0], content=data).raise_for_status()
        return
    with data.open("rb") as file:
        size = {"Content-Length": str(data.stat().st_size)}
        httpx.put(urls[0], content=file, headers=size, timeout=600).raise_for_status()


def plain_celery(system: System, num_messages: int) -> float:
    """Messages a second from the first publication to the last task's end, by a worker of two processes."""
    command = [sys.executable, str(ROOT / "benchmarks" / "plain_celery.py"), str(num_messages)]
    done = subprocess.run(command, env=system.environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def processor_seconds(pids: dict[str, int]) -> dict[str, float]:
    """Of each process and its children, since they began."""
    return {name: _tree_seconds(psutil.Process(pid)) for name, pid in pids.items()}


def _tree_seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(sum(each.cpu_times()[:4]) if each is process else sum(each.cpu_times()[:2]) for each in family)


def peak_megabytes(pid: int) -> float:
    """Of the process alone, since it began."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def render(measured: list[Measured], shard_items: int, peer: float | None, num_messages: int) -> str:
    names = list(measured[0].processor_ms)
    lines = [
        "# A million items",
        "",
        f"`python benchmarks/million.py`, {datetime.now(UTC):%Y-%m-%d}: {cpu_name()}, {os.cpu_count()} cores, on which",
        "all of it runs: API, dispatcher, one worker with its decoders, Postgres, Valkey and S3. Captions of 400",
        f"characters from an engine that answers at once; pictures of 16 x 16 px; {shard_items} items a shard.",
        "",
        "| items | read and sharded, items/s | end to end, items/s | ms an item |",
        "|---|---|---|---|",
        *(
            f"| {each.num_items:,} | {each.num_items / each.read_seconds:,.0f} | {each.num_items / each.seconds:,.0f} "
            f"| {1000 * each.seconds / each.num_items:.3f} |"
            for each in measured
        ),
        "",
        "Processor time, ms an item:",
        "",
        f"| items | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {e.num_items:,} | {' | '.join(f'{e.processor_ms[name]:.3f}' for name in names)} |" for e in measured),
        "",
        "Most memory since the process began, MB:",
        "",
        f"| after | {' | '.join(OURS)} |",
        "|---" * (len(OURS) + 1) + "|",
        *(f"| {e.num_items:,} items | {' | '.join(f'{e.peak_megabytes[n]:.0f}' for n in OURS)} |" for e in measured),
    ]
    if peer is not None:
        ratio = measured[-1].num_items / measured[-1].seconds / peer
        lines += [
            "",
            "Beside it, plain Celery with a message for every item on the same broker, two processes, whose task does",
            f"nothing: {peer:,.0f} items/s ({num_messages:,} messages). Ours, with all that it does: {ratio:.1f}x.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
