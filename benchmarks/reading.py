"""How fast a job's input becomes shards: python benchmarks/reading.py [--items 1000000]

A manifest in the store is read by the dispatcher's reader, checked line by line, cut into shards of 64 and written to
the store and to Postgres, all on this machine. Prints items a second and the most memory of the reader's process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.admin import ensure_key, migrate  # noqa: E402
from orchestrator.artifacts import open_store  # noqa: E402
from orchestrator.db import jobs, teams, uploads, workers  # noqa: E402
from orchestrator.db.session import connect, database_now, session_factory  # noqa: E402
from orchestrator.dispatch.reader import Reader  # noqa: E402
from orchestrator.domain.jobs import CaptionOptions, JobKind  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import settings_of  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder:
        servers = Servers(Path(folder) / "servers")
        servers.start()
        try:
            measure(servers.environment(), Path(folder) / "manifest.jsonl", options.items)
        finally:
            servers.stop()


def measure(environment: dict[str, str], manifest: Path, num_items: int) -> None:
    settings = settings_of(os.environ | environment)
    migrate(settings)
    ensure_key(settings, team="bench", name="bench", scopes=["jobs:write"])
    sessions = session_factory(connect(settings.database_url.get_secret_value(), statement_timeout_seconds=600))
    store = open_store(settings)
    with manifest.open("w") as file:
        file.writelines(_lines(num_items))
    with sessions.begin() as session:
        (team,) = teams.list_teams(session)
        workers.register_model(session, "m", family="none", revision="none")
        upload, _ = uploads.create_upload(session, team.id)
        job, _ = jobs.create_job(
            session,
            team.id,
            kind=JobKind.caption,
            name="bench",
            model="m",
            priority=0,
            shard_items=64,
            options=CaptionOptions(),
            input={"upload": upload.id, "manifest": "manifest.jsonl"},
        )
        store.put_file(f"{uploads.upload_prefix(team.id, upload.id)}manifest.jsonl", manifest)
    reader = Reader(sessions, store, max_item_line_bytes=settings.max_item_line_bytes)
    began = time.monotonic()
    with sessions() as session:
        now = database_now(session)
    num_jobs = reader.run_once(now)
    seconds = time.monotonic() - began
    assert num_jobs == 1
    with sessions() as session:
        assert jobs.get_job(session, job.id).num_items == num_items
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{num_items} items in {seconds:.1f} s: {num_items / seconds:.0f} items/s; most memory {megabytes:.0f} MB")


def _lines(num_items: int) -> Iterator[str]:
    """As the client sends them: small pictures, many to an object."""
    for number in range(num_items):
        bundle, place = divmod(number, 64)
        image = {"object": f"bundles/{bundle:09d}", "offset": place * 60_000, "num_bytes": 60_000}
        yield json.dumps({"id": f"photos/{number:08d}.jpg", "image": image}) + "\n"


if __name__ == "__main__":
    main()
