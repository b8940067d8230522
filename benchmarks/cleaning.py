"""How fast orphans are found and jobs are deleted: python benchmarks/cleaning.py [--listed 1000000] [--objects 100000]

The collector goes through a simulated listing: the store says that jobs that have ended have so many objects, one in a
hundred of which no row names; Postgres and every deletion are real. Then the cleaner deletes a job with so many objects
that are really there, and its rows. Both at full speed, in this process, against the local servers. Prints rates and
memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqlalchemy import text  # noqa: E402

from orchestrator.admin import ensure_key, migrate  # noqa: E402
from orchestrator.artifacts import S3Store, open_store  # noqa: E402
from orchestrator.artifacts.base import StoredObject  # noqa: E402
from orchestrator.db.session import SessionFactory, connect, database_now, session_factory  # noqa: E402
from orchestrator.dispatch.cleaner import Cleaner  # noqa: E402
from orchestrator.dispatch.collector import PAGE, ROUND_SECONDS, Collector  # noqa: E402
from orchestrator.domain.shards import part_key  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from orchestrator.telemetry import configure_logging  # noqa: E402
from tests.system import settings_of  # noqa: E402

ORPHAN_EVERY = 100
MARK = 100_000  # objects between two looks at the memory
OBJECT_SHARDS = 27  # of 64 items, as fill an object of items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listed", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 20_000], help="of each job that is listed")
    parser.add_argument("--objects", type=int, default=100_000, help="of the job that is deleted")
    options = parser.parse_args()
    configure_logging("warning", hidden=[], process="bench")
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder:
        servers = Servers(Path(folder) / "servers")
        servers.start()
        try:
            settings = settings_of(os.environ | servers.environment())
            migrate(settings)
            ensure_key(settings, team="bench", name="bench", scopes=["jobs:write"])
            engine = connect(settings.database_url.get_secret_value(), statement_timeout_seconds=120)
            sessions, store = session_factory(engine), open_store(settings)
            for number, shards_of_job in enumerate(options.shards):
                jobs = max(1, options.listed // shards_of_job)
                add_jobs(sessions, f"listed_{number}", jobs, shards_of_job)
                collect(sessions, ListedStore(sessions, store, f"job_listed_{number}_"), shards_of_job)
            add_jobs(sessions, "deleted", 1, options.objects)
            put_parts(sessions, store, "job_deleted_0")
            delete(sessions, store, "job_deleted_0", options.objects)
        finally:
            servers.stop()


def add_jobs(sessions: SessionFactory, name: str, num_jobs: int, num_shards: int) -> None:
    """Jobs that have ended, of so many shards each, with a part and an event for every shard."""
    values = {"name": f"job_{name}_", "jobs": num_jobs, "shards": num_shards, "together": OBJECT_SHARDS}
    with sessions.begin() as session:
        for statement in _STATEMENTS:
            session.execute(text(statement), values)
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"}).execute(text("VACUUM ANALYZE"))


_STATEMENTS = (
    """
    INSERT INTO jobs (id, team_id, name, kind, model, options, input, shard_items, state, num_items, num_results,
                      finished_at)
    SELECT :name || n, teams.id, 'bench', 'caption', 'm', '{}', '{}', 64, 'completed', 64 * :shards, 64 * :shards, now()
    FROM generate_series(0, :jobs - 1) n, teams
    """,
    """
    INSERT INTO shards (id, job_id, items_key, items_offset, items_bytes, first_index, num_items, state, attempt,
                        num_results, parts)
    OVERRIDING SYSTEM VALUE
    SELECT last + n * :shards + k, :name || n,
           'jobs/' || :name || n || '/items/' || lpad((k / :together * :together * 64)::text, 12, '0') || '.jsonl',
           0, 9000, k * 64, 64, 'done', 1, 64, jsonb_build_array(jsonb_build_object(
               'key', 'jobs/' || :name || n || '/shards/' || last + n * :shards + k || '/1-0.jsonl',
               'sha256', repeat('0', 64), 'num_bytes', 20000,
               'results', jsonb_build_array(jsonb_build_array(k * 64, k * 64 + 64)), 'failures', '[]'::jsonb))
    FROM (SELECT coalesce(max(id), 0) + 1 AS last FROM shards) ids,
         generate_series(0, :jobs - 1) n, generate_series(0, :shards - 1) k
    """,
    """
    INSERT INTO events (job_id, shard_id, type)
    SELECT job_id, id, 'shard.done' FROM shards WHERE starts_with(job_id, :name)
    """,
)


class ListedStore:
    """The store, whose listing of `jobs/` is made up from rows; `megabytes` of this process at every MARK."""

    def __init__(self, sessions: SessionFactory, store: S3Store, job_prefix: str) -> None:
        self._sessions = sessions
        self._store = store
        self._job_prefix = job_prefix
        self.num_listed = 0
        self.megabytes: list[float] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Job by job a part for each of its shards, in the order of their names as text; some by an older attempt."""
        if prefix != "jobs/":
            return
        long_ago = datetime.now(UTC) - timedelta(days=30)
        for job_id, shard_ids in self._jobs():
            for shard_id in sorted(shard_ids, key=str):
                self.num_listed += 1
                attempt = 0 if self.num_listed % ORPHAN_EVERY == 0 else 1
                yield StoredObject(part_key(job_id, shard_id, attempt, 0), 20_000, long_ago)
                if self.num_listed % MARK == 0:
                    self.megabytes.append(resident_megabytes())

    def _jobs(self) -> Iterator[tuple[str, list[int]]]:
        with self._sessions() as session:
            names = text('SELECT id FROM jobs WHERE starts_with(id, :name) ORDER BY id COLLATE "C"')
            for (job_id,) in session.execute(names, {"name": self._job_prefix}).all():
                ids = session.execute(text("SELECT id FROM shards WHERE job_id = :id"), {"id": job_id})
                yield job_id, [shard_id for (shard_id,) in ids]


def collect(sessions: SessionFactory, store: ListedStore, shards_of_job: int) -> None:
    collector = Collector(sessions, store, presigned_url_seconds=3600)  # type: ignore[arg-type]
    began, num_orphans, longest = time.monotonic(), 0, 0.0
    page_began = began
    for page in collector.pages(datetime.now(UTC)):
        num_orphans += len(page.keys)
        longest = max(longest, time.monotonic() - page_began)
        page_began = time.monotonic()
    seconds = time.monotonic() - began
    assert num_orphans == store.num_listed // ORPHAN_EVERY, num_orphans
    rate = store.num_listed / seconds
    print(
        f"collector, {shards_of_job} shards a job: {store.num_listed} objects in {seconds:.1f} s, {rate:.0f} a second. "
        f"{num_orphans} orphans deleted; a page of {PAGE} took at most {1000 * longest:.0f} ms. In the dispatcher, "
        f"which rests a second after {ROUND_SECONDS} s of it: {rate * ROUND_SECONDS / (1 + ROUND_SECONDS):.0f} a second"
    )
    print(f"memory at every {MARK}: {' '.join(f'{each:.0f}' for each in store.megabytes)} MB", flush=True)


def put_parts(sessions: SessionFactory, store: S3Store, job_id: str) -> None:
    with sessions() as session:
        ids = session.execute(text("SELECT id FROM shards WHERE job_id = :id"), {"id": job_id}).all()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda row: store.put(part_key(job_id, row[0], 1, 0), b"{}\n" * 30), ids, chunksize=100):
            pass
    print(f"{len(ids)} objects put, {len(ids) / (time.monotonic() - began):.0f} a second", flush=True)


def delete(sessions: SessionFactory, store: S3Store, job_id: str, num_objects: int) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET deleted_at = now() WHERE id = :id"), {"id": job_id})
    cleaner, rounds, before = Cleaner(sessions, store, keep_days=0), list[float](), resident_megabytes()
    began = time.monotonic()
    while True:
        round_began = time.monotonic()
        with sessions() as session:
            now = database_now(session)
        if not cleaner.run_once(now):
            break
        rounds.append(time.monotonic() - round_began)
    seconds = time.monotonic() - began
    assert next(iter(store.list(f"jobs/{job_id}/")), None) is None
    with sessions() as session:
        assert not session.execute(text("SELECT 1 FROM shards WHERE job_id = :id LIMIT 1"), {"id": job_id}).all()
    print(
        f"cleaner: {num_objects} objects, {num_objects} shards and as many events in {seconds:.1f} s: "
        f"{num_objects / seconds:.0f} objects a second with their rows; {len(rounds)} rounds, the longest "
        f"{max(rounds):.1f} s (the last one, which deletes the rows, {rounds[-1]:.1f} s); memory {before:.0f} to "
        f"{resident_megabytes():.0f} MB"
    )


def resident_megabytes() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
