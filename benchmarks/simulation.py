"""A site of many GPUs on this machine: python benchmarks/simulation.py [--workers 10 100 1000] [--seconds 20]

The dispatcher process with all its loops, Postgres, Valkey and the store are real. Workers are virtual: each takes
messages from the queue and their leases, beats, asks for stops and ends its shards through `orchestrator/db/`, with
the statements of a real one, but an item takes only time, `--item-seconds` of its GPU. Nothing is put into the store,
and no job ends while it is measured.

Prints of each size: shards a second and what the GPUs could have done; the share of their time in which the GPUs had
nothing; how long a place for a shard was free before the next was leased, and a shard in the queue; processor time a
shard by process. The virtual workers take processor time as well: `driver` says how far the machine was the limit.
"""

from __future__ import annotations

import argparse
import base64
import heapq
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from redis import Redis  # noqa: E402
from sqlalchemy import text  # noqa: E402

from benchmarks.million import processor_seconds  # noqa: E402
from orchestrator.admin import ensure_key  # noqa: E402
from orchestrator.db import jobs, leases, shards, teams, workers  # noqa: E402
from orchestrator.db.session import SessionFactory, connect, session_factory  # noqa: E402
from orchestrator.domain.jobs import CaptionOptions, JobKind  # noqa: E402
from orchestrator.domain.shards import Part, items_key, part_key  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from orchestrator.settings import Settings  # noqa: E402
from orchestrator.transport import queue_of  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

MODEL = "virtual"
NUM_TEAMS = 10
THREADS = 12  # of the driver that speak with Postgres
PRIORITY_SEPARATOR = "\x06\x16"  # of kombu: a queue has a list for each priority


@dataclass
class Worker:
    """One GPU. It holds some shards, and computes one after the other."""

    id: str
    held: dict[tuple[int, int], None] = field(default_factory=dict)
    free_at: float = 0.0  # when what it holds is computed
    idle_seconds: float = 0.0
    has_begun: bool = False


@dataclass
class Measured:
    """One size. Seconds; processor time in milliseconds, commits and bytes of write-ahead log a shard."""

    num_workers: int
    seconds: float
    num_shards: int
    possible: float
    queued: list[float]
    taken: list[float]
    idle_share: float
    processor_ms: dict[str, float]
    commits: float
    wal_bytes: float


class Site:
    """N virtual workers, driven by one clock."""

    def __init__(self, sessions: SessionFactory, settings: Settings, num_workers: int, item_seconds: float) -> None:
        self._sessions, self._settings, self._item_seconds = sessions, settings, item_seconds
        self._redis = Redis.from_url(settings.redis_url.get_secret_value())
        self._lists = [queue_of(MODEL), *(f"{queue_of(MODEL)}{PRIORITY_SEPARATOR}{n}" for n in (3, 6, 9))]
        self._workers = [Worker(f"virtual-{n}") for n in range(num_workers)]
        self._pool = ThreadPoolExecutor(THREADS)
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._lock = threading.Lock()
        self._room: deque[tuple[Worker, float]] = deque()  # with since when
        self._has_room = threading.Semaphore(0)
        self._stop = threading.Event()
        self.begins_at = self.ends_at = 0.0
        self.queued: list[float] = []  # of each shard, seconds from its dispatch to its lease, by the database's clock
        self.taken: list[float] = []  # from a place that is free to the lease that fills it
        self.num_done = 0
        self.errors = 0

    def run(self, warm_seconds: float, seconds: float, on_begin: Callable[[], None]) -> None:
        """Let it work, and measure behind the warming."""
        self._register()
        threads = [threading.Thread(target=target, daemon=True) for target in (self._fetch, self._tick)]
        for thread in threads:
            thread.start()
        time.sleep(warm_seconds)
        with self._lock:
            self.begins_at = time.monotonic()
            self.queued, self.taken, self.num_done = [], [], 0
            for worker in self._workers:
                worker.idle_seconds = 0.0
        on_begin()
        time.sleep(seconds)
        self.ends_at = time.monotonic()

    def close(self) -> None:
        self._stop.set()
        self._has_room.release()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def idle_share(self) -> float:
        """Of the measured time; a worker that is idle at the end counts until then."""
        idle = sum(
            worker.idle_seconds + max(0.0, self.ends_at - max(worker.free_at, self.begins_at))
            for worker in self._workers
        )
        return idle / len(self._workers) / (self.ends_at - self.begins_at)

    def _register(self) -> None:
        with self._sessions.begin() as session:
            workers.register_model(session, MODEL, family="none", revision="none")
            for worker in self._workers:
                workers.register_worker(session, worker.id, host="virtual", pid=1, models=[MODEL])
        now = time.monotonic()
        for worker in self._workers:
            worker.free_at = now
            offset = random.random()  # as they do not all start in the same moment
            self._at(now + offset, lambda worker=worker: self._look(worker))
            self._at(now + 20 * offset, lambda worker=worker: self._beat(worker))
            for _ in range(self._settings.shards_in_flight):
                self._give_room(worker)

    def _give_room(self, worker: Worker) -> None:
        self._room.append((worker, time.monotonic()))
        self._has_room.release()

    def _fetch(self) -> None:
        """A message for each place that is free, to whoever waited longest."""
        while not self._stop.is_set():
            self._has_room.acquire()
            if self._stop.is_set():
                return
            found = None
            while found is None and not self._stop.is_set():
                found = self._redis.brpop(self._lists, timeout=1)
            if found is not None:
                worker, since = self._room.popleft()
                shard_id, attempt = json.loads(base64.b64decode(json.loads(found[1])["body"]))[0]
                self._submit(lambda w=worker, t=since, s=shard_id, n=attempt: self._take(w, s, n, t))

    def _tick(self) -> None:
        """What is due goes to the threads."""
        while not self._stop.is_set():
            with self._lock:
                now, ready = time.monotonic(), []
                while self._due and self._due[0][0] <= now:
                    ready.append(heapq.heappop(self._due)[2])
            for call in ready:
                self._submit(call)
            time.sleep(0.002)

    def _at(self, when: float, call: Callable[[], object]) -> None:
        with self._lock:
            heapq.heappush(self._due, (when, next(self._order), call))

    def _submit(self, call: Callable[[], object]) -> None:
        if not self._stop.is_set():
            self._pool.submit(self._guarded, call)

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self.errors += 1
            if self.errors == 1:
                print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr, flush=True)

    def _take(self, worker: Worker, shard_id: int, attempt: int, since: float) -> None:
        lease_seconds = self._settings.lease_seconds
        with self._sessions() as session:
            shards.find_shard(session, shard_id)
        with self._sessions.begin() as session:
            shard = leases.take_lease(session, shard_id, attempt, worker_id=worker.id, lease_seconds=lease_seconds)
            job = jobs.get_job(session, shard.job_id) if shard is not None else None
        if shard is None or job is None:
            self._give_room(worker)
            return
        assert shard.lease_expires_at is not None
        assert shard.dispatched_at is not None
        leased_at = shard.lease_expires_at - timedelta(seconds=lease_seconds)
        pair, now = (shard_id, attempt), time.monotonic()
        with self._lock:
            self.queued.append((leased_at - shard.dispatched_at).total_seconds())
            self.taken.append(now - since)
            worker.held[pair] = None
            worker.idle_seconds += max(0.0, now - max(worker.free_at, self.begins_at))
            share = random.uniform(0.8, 1.2) if worker.has_begun else random.random()  # as they are out of step
            worker.has_begun = True
            worker.free_at = max(worker.free_at, now) + share * shard.num_items * self._item_seconds
            ends = worker.free_at
        ranges = ((shard.first_index, shard.first_index + shard.num_items),)
        part = Part(part_key(job.id, shard_id, attempt, 0), "0" * 64, 30_000, ranges, ())
        self._at(ends, lambda: self._finish(worker, pair, part))

    def _finish(self, worker: Worker, pair: tuple[int, int], part: Part) -> None:
        """The last part and the end in one transaction, as a worker does it."""
        try:
            with self._sessions.begin() as session:
                leases.append_part(session, *pair, part, [])
                leases.finish_shard_if_leased(session, *pair)
        finally:
            with self._lock:
                worker.held.pop(pair)
                self.num_done += 1
            self._give_room(worker)

    def _look(self, worker: Worker) -> None:
        with self._lock:
            held = dict(worker.held)
        if held:
            with self._sessions() as session:
                leases.find_stops(session, held)
        self._at(time.monotonic() + self._settings.control_seconds, lambda: self._look(worker))

    def _beat(self, worker: Worker) -> None:
        with self._lock:
            held = dict(worker.held)
        with self._sessions.begin() as session:
            workers.beat(session, worker.id)
            if held:
                leases.renew_leases(session, held, lease_seconds=self._settings.lease_seconds)
        self._at(time.monotonic() + self._settings.heartbeat_seconds, lambda: self._beat(worker))


def add_jobs(sessions: SessionFactory, settings: Settings, num_shards: int, shard_items: int) -> None:
    """One job of each team, read already."""
    per_job = -(-num_shards // NUM_TEAMS)
    for n in range(NUM_TEAMS):
        name = f"team-{n}"
        ensure_key(settings, team=name, name="key", scopes=["jobs:write"])
        with sessions.begin() as session:
            (team,) = (team for team in teams.list_teams(session) if team.name == name)
            job, _ = jobs.create_job(
                session, team.id, name=name, kind=JobKind.caption, model=MODEL, options=CaptionOptions(),
                input={"lines": []}, shard_items=shard_items,
            )  # fmt: skip
            planned = [
                shards.PlannedShard(k * shard_items, shard_items, items_key(job.id, 0), 0, 9_600)
                for k in range(per_job)
            ]
            shards.add_shards(session, job.id, planned)
            jobs.start(session, job.id, per_job * shard_items)


@contextmanager
def running(folder: Path, own: dict[str, str]) -> Iterator[tuple[System, dict[str, int]]]:
    """The system with the product's own settings, nothing of it started, and its servers' processes by their names."""
    servers = Servers(folder / "servers")
    servers.start()
    system = System(servers.environment(), folder, MODEL, **(product_settings() | own))
    try:
        yield system, {server.name: server.pid or 0 for server in servers.all}
    finally:
        system.stop()
        servers.stop()


def measure(options: argparse.Namespace, num_workers: int) -> Measured:
    shard_seconds = options.shard_items * options.item_seconds
    possible = num_workers / shard_seconds
    with (
        tempfile.TemporaryDirectory(prefix="janus-simulation-") as folder,
        running(Path(folder), _own_settings(options)) as (system, pids),
    ):
        url = system.settings.database_url.get_secret_value()
        engine = connect(url, pool_size=THREADS, statement_timeout_seconds=120)
        sessions = session_factory(engine)
        wanted = int(possible * (options.warm_seconds + options.seconds) * 1.3) + 100
        add_jobs(sessions, system.settings, max(wanted, options.backlog), options.shard_items)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        system.run("dispatcher", "orchestrator.dispatch")
        pids |= {"dispatcher": system.processes["dispatcher"].pid}
        before: dict[str, float] = {}
        site = Site(sessions, system.settings, num_workers, options.item_seconds)

        def spent_so_far() -> dict[str, float]:
            return own_seconds(pids) | database_books(sessions)

        site.run(options.warm_seconds, options.seconds, lambda: before.update(spent_so_far()))
        spent = {name: value - before[name] for name, value in spent_so_far().items()}
        num_shards, seconds = site.num_done, site.ends_at - site.begins_at
        site.close()
        if site.errors:
            print(f"{site.errors} calls of virtual workers failed", file=sys.stderr, flush=True)
        engine.dispose()
    some = max(1, num_shards)
    commits, wal_bytes = spent.pop("commits") / some, spent.pop("wal_bytes") / some
    per_shard = {name: 1000 * each / some for name, each in spent.items()}
    return Measured(
        num_workers,
        seconds,
        num_shards,
        possible,
        site.queued,
        site.taken,
        site.idle_share,
        per_shard,
        commits,
        wal_bytes,
    )


def own_seconds(pids: dict[str, int]) -> dict[str, float]:
    """Processor seconds by process; the driver is this one."""
    return processor_seconds(pids) | {"driver": sum(os.times()[:2])}


def database_books(sessions: SessionFactory) -> dict[str, float]:
    """Commits, and bytes of the write-ahead log, since the servers began."""
    statement = "SELECT sum(xact_commit), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') FROM pg_stat_database"
    with sessions() as session:
        commits, wal_bytes = session.execute(text(statement)).one()
    return {"commits": float(commits), "wal_bytes": float(wal_bytes)}


def _own_settings(options: argparse.Namespace) -> dict[str, str]:
    given = {"JANUS_QUEUE_DEPTH": options.queue_depth, "JANUS_CONTROL_SECONDS": options.control_seconds}
    return {name: str(value) for name, value in given.items() if value is not None}


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def render(each: Measured, item_seconds: float, shard_items: int) -> str:
    rate = each.num_shards / each.seconds
    spent = ", ".join(f"{name} {value:.2f}" for name, value in sorted(each.processor_ms.items()))
    return (
        f"{each.num_workers} workers of {1 / item_seconds:.1f} items/s, {shard_items} items a shard: "
        f"{rate:.1f} shards/s of {each.possible:.1f} possible ({rate * shard_items:,.0f} items/s); idle "
        f"{100 * each.idle_share:.1f}%; in the queue {1000 * quantile(each.queued, 0.5):.0f} ms "
        f"(p99 {1000 * quantile(each.queued, 0.99):.0f}); a free place waited "
        f"{1000 * quantile(each.taken, 0.5):.0f} ms (p99 {1000 * quantile(each.taken, 0.99):.0f}); "
        f"processor ms a shard: {spent}; "
        f"{each.commits:.1f} commits and {each.wal_bytes / 1000:.1f} kB of write-ahead log a shard"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-seconds", type=float, default=10)
    parser.add_argument("--item-seconds", type=float, default=0.1, help="of a GPU")
    parser.add_argument("--shard-items", type=int, default=64)
    parser.add_argument("--queue-depth", type=int, help="in place of the product's JANUS_QUEUE_DEPTH")
    parser.add_argument("--control-seconds", type=float, help="in place of the product's JANUS_CONTROL_SECONDS")
    parser.add_argument("--backlog", type=int, default=0, help="at least so many shards wait at the beginning")
    options = parser.parse_args()
    for num_workers in options.workers:
        print(render(measure(options, num_workers), options.item_seconds, options.shard_items), flush=True)


if __name__ == "__main__":
    main()
