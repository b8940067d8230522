"""Many small jobs at once: python benchmarks/many_jobs.py [--jobs 10000]

The whole local system with the product's own settings and one worker whose engine answers at once. Twenty teams make
jobs of two captions each, as fast as the API takes them. Prints how many jobs a second were accepted, and from then on
every few seconds how many stand in each state, which shows what holds the others up; at the end rates, processor time a
job and the most memory of each process.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image
from sqlalchemy import func, select

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.million import peak_megabytes, processor_seconds, running  # noqa: E402
from orchestrator.db.session import SessionFactory, connect, session_factory  # noqa: E402
from orchestrator.db.tables import JobRow  # noqa: E402
from tests.system import System  # noqa: E402

NUM_TEAMS = 20
THREADS = 8
LOOK_SECONDS = 5
PICTURE = "picture.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder, running(Path(folder)) as (_, system, pids):
        engine = connect(system.settings.database_url.get_secret_value())
        measure(system, session_factory(engine), options.jobs, pids)
        engine.dispose()


def measure(system: System, sessions: SessionFactory, num_jobs: int, pids: dict[str, int]) -> None:
    uploads = [upload_picture(system, system.make_key(f"team-{n}")) for n in range(NUM_TEAMS)]
    before, began = processor_seconds(pids), time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda n: create(*uploads[n % NUM_TEAMS], n), range(num_jobs)))
    accepted = time.monotonic() - began
    print(f"{num_jobs} jobs accepted in {accepted:.1f} s: {num_jobs / accepted:.0f} a second", flush=True)
    while (states := count_states(sessions)).get("completed", 0) < num_jobs:
        print(f"{time.monotonic() - began:.0f} s: {states}", flush=True)
        assert not states.keys() & {"failed", "cancelled"}, states
        time.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    spent = {name: 1000 * (value - before[name]) / num_jobs for name, value in processor_seconds(pids).items()}
    print(f"all completed after {seconds:.1f} s: {num_jobs / seconds:.1f} jobs a second")
    print("processor ms a job:", ", ".join(f"{name} {value:.2f}" for name, value in spent.items()))
    print("most memory, MB:", ", ".join(f"{name} {peak_megabytes(pid):.0f}" for name, pid in pids.items()))


def upload_picture(system: System, key: str) -> tuple[httpx.Client, str]:
    """One client of the team, and its upload."""
    http = httpx.Client(base_url=system.url, headers={"Authorization": f"Bearer {key}"}, timeout=600)
    upload = http.post("/v1/uploads").raise_for_status().json()["id"]
    (url,) = http.post(f"/v1/uploads/{upload}/urls", json={"names": [PICTURE]}).raise_for_status().json()["urls"]
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    httpx.put(url, content=picture.getvalue()).raise_for_status()
    return http, upload


def create(http: httpx.Client, upload: str, number: int) -> None:
    items = [{"id": name, "image": PICTURE} for name in "ab"]
    body = {"kind": "caption", "name": f"job {number}", "model": "instant", "input": {"upload": upload, "items": items}}
    http.post("/v1/jobs", json=body).raise_for_status()


def count_states(sessions: SessionFactory) -> dict[str, int]:
    with sessions() as session:
        rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
    return {state: count for state, count in rows}  # noqa: C416


if __name__ == "__main__":
    main()
