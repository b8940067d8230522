"""How fast a job's input becomes shards: python benchmarks/reading.py [--items 1000000] [--source manifest | listing]
[--sample 50]

The dispatcher's reader cuts it into shards of 64, written to the store and to Postgres, all on this machine. A manifest
lies in the store and is checked line by line. A listing is simulated: the store says that the upload holds so many
images of 100 KB (2,000,000 of them are 200 GB); everything else is real. Prints items a second, and how the memory of
the reader's process grew behind the first 100,000 items.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.admin import ensure_key, migrate  # noqa: E402
from orchestrator.artifacts import S3Store, open_store  # noqa: E402
from orchestrator.artifacts.base import StoredObject  # noqa: E402
from orchestrator.db import jobs, teams, uploads, workers  # noqa: E402
from orchestrator.db.session import connect, database_now, session_factory  # noqa: E402
from orchestrator.dispatch.reader import Reader  # noqa: E402
from orchestrator.domain.jobs import CaptionOptions, JobKind  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import settings_of  # noqa: E402

MARK = 100_000  # items between two looks at the memory
IMAGE_BYTES = 100_000
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--source", choices=["manifest", "listing"], default="manifest")
    parser.add_argument("--sample", type=int, help="of so many items, for which the input is read twice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder:
        servers = Servers(Path(folder) / "servers")
        servers.start()
        try:
            measure(
                servers.environment(), Path(folder) / "manifest.jsonl", options.items, options.source, options.sample
            )
        finally:
            servers.stop()


class WatchedStore:
    """The store, with what is read from it counted; `megabytes` of this process for each MARK that was read."""

    def __init__(self, store: S3Store, num_listed: int) -> None:
        self._store = store
        self._num_listed = num_listed
        self.megabytes: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def lines(self, key: str, **limits: int | None) -> Iterator[bytes]:
        return self._watched(self._store.lines(key, **limits))  # type: ignore[arg-type]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """So many images, in folders of a thousand."""
        now = datetime.now(UTC)
        names = (f"{prefix}{number // 1000:06d}/{number:09d}.jpg" for number in range(self._num_listed))
        return self._watched(StoredObject(name, IMAGE_BYTES, now) for name in names)

    def _watched(self, things: Iterator[T]) -> Iterator[T]:
        for number, thing in enumerate(things, 1):
            yield thing
            if number % MARK == 0:
                self.megabytes.append(resident_megabytes())


def measure(environment: dict[str, str], manifest: Path, num_items: int, source: str, sample: int | None) -> None:
    settings = settings_of(os.environ | environment)
    migrate(settings)
    ensure_key(settings, team="bench", name="bench", scopes=["jobs:write"])
    sessions = session_factory(connect(settings.database_url.get_secret_value(), statement_timeout_seconds=600))
    store = WatchedStore(open_store(settings), num_items)
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
            sample=sample,
            input={"upload": upload.id} | ({"manifest": "manifest.jsonl"} if source == "manifest" else {}),
        )
    if source == "manifest":
        with manifest.open("w") as file:
            file.writelines(_lines(num_items))
        store.put_file(f"{uploads.upload_prefix(team.id, upload.id)}manifest.jsonl", manifest)  # type: ignore[operator]
    reader = Reader(sessions, store, max_item_line_bytes=settings.max_item_line_bytes)  # type: ignore[arg-type]
    began = time.monotonic()
    with sessions() as session:
        now = database_now(session)
    num_jobs = reader.run_once(now)
    seconds = time.monotonic() - began
    assert num_jobs == 1
    with sessions() as session:
        assert jobs.get_job(session, job.id).num_items == (sample or num_items)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{num_items} items of a {source} in {seconds:.1f} s: {num_items / seconds:.0f} items/s")
    print(f"memory at most {most:.0f} MB; at every {MARK} items: {' '.join(f'{each:.0f}' for each in store.megabytes)}")


def resident_megabytes() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _lines(num_items: int) -> Iterator[str]:
    """As the client sends them: small pictures, many to an object."""
    for number in range(num_items):
        bundle, place = divmod(number, 64)
        image = {"object": f"bundles/{bundle:09d}", "offset": place * 60_000, "num_bytes": 60_000}
        yield json.dumps({"id": f"photos/{number:08d}.jpg", "image": image}) + "\n"


if __name__ == "__main__":
    main()
