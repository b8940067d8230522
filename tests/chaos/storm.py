"""One storm: what is asked, which faults strike when, and what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from minio import Minio

from tests.chaos import faults
from tests.chaos.checker import Checker, Findings
from tests.chaos.faults import FAULTS, POISONED, Strike
from tests.chaos.work import Submitter, Work, captions, pictures, poisoned
from tests.chaos.world import World

FAULTS_IN_A_STORM = 6


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides. `strikes`: (finished share of all items, fault, seed of its own dice)."""

    seed: int
    works: list[Work]
    poison: Work
    strikes: list[tuple[float, str, int]]


@dataclass
class Outcome:
    seed: int
    findings: Findings
    strikes: list[Strike]
    recoveries: list[tuple[str, float | None]] = field(default_factory=list)
    seconds: float = 0.0


def plan(seed: int, num_items: int, only: Sequence[str] = ()) -> Plan:
    dice = random.Random(seed)
    spare = num_items - num_items * 5 // 10 - num_items * 3 // 10
    works = [
        pictures("pictures", num_items * 5 // 10, dice),
        captions("captions", num_items * 3 // 10, dice),
        pictures("dropped", spare - spare // 2, dice, priority=-1, may_be_cancelled=True),
        pictures("late", spare // 2, dice, priority=-2, has_deadline=True),
    ]
    names = list(only) or dice.sample([*FAULTS, POISONED], FAULTS_IN_A_STORM)
    shares = sorted(dice.uniform(0.0, 0.75) for _ in names)
    strikes = [(share, name, dice.randrange(2**32)) for share, name in zip(shares, names, strict=True)]
    return Plan(seed, works, poisoned("poisoned", 12, dice.randrange(12), shard_items=6), strikes)


def run(world: World, planned: Plan) -> Outcome:
    """Submit, strike, wait for the end, check."""
    began = time.monotonic()
    key = world.system.make_key(f"storm-{planned.seed}-{time.time_ns()}")
    works, struck = list(planned.works), list[Strike]()
    outage = world.outage_seconds
    patience, deadline = 60 + 4 * outage, 4 + 3 * outage  # s; the latter longer than any answer takes
    submitter = Submitter(world.system.url, key, patience_seconds=patience, deadline_seconds=deadline)
    with ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(_submit_all, submitter, planned.works)]
        for share, name, seed in planned.strikes:
            _wait_for_share(world, works, share)
            if name == POISONED:
                works.append(planned.poison)
                asked.append(clients.submit(submitter.submit, planned.poison, new_key()))
                struck.append(Strike(name, world.now()))
            else:
                struck.append(faults.strike(name, world, random.Random(seed)))
        for future in asked:
            future.result()
    submitter.close()
    wait_for_end(world, works)
    world.calm()
    outcome = Outcome(planned.seed, checker_of(world).check(works), struck, seconds=time.monotonic() - began)
    outcome.recoveries = [(strike.name, _recovery(world, planned, strike)) for strike in struck]
    return outcome


def _submit_all(submitter: Submitter, works: Sequence[Work]) -> None:
    """The second job is paused for a moment, the third is cancelled in the middle, the last has a deadline."""
    _, paused, dropped, _ = works
    for work in works:
        submitter.submit(work, new_key())
    submitter.ask(paused, "pause")
    time.sleep(1)
    submitter.ask(paused, "resume")
    time.sleep(2)
    submitter.ask(dropped, "cancel")


def new_key() -> str:
    return f"chaos-{time.time_ns()}"


def _wait_for_share(world: World, works: Sequence[Work], share: float) -> None:
    """Until so much of what was asked is finished; or nothing more is, for ten times as long as a lease lasts."""
    total = sum(len(work.items) for work in works)
    finished, last_change = -1, time.monotonic()
    while time.monotonic() < last_change + 10 * world.lease_seconds:
        now_finished = _finished(world, works)
        if now_finished >= share * total:
            return
        if now_finished != finished:
            finished, last_change = now_finished, time.monotonic()
        time.sleep(0.05)


def _finished(world: World, works: Sequence[Work]) -> int:
    ids = [work.job_id for work in works if work.job_id]
    query = "SELECT coalesce(sum(num_results + num_failures), 0) FROM shards WHERE job_id = ANY(%s)"
    return int(world.sql(query, [ids])[0][0])


def wait_for_end(world: World, works: Sequence[Work], *, timeout_seconds: float | None = None) -> None:
    """Until every job has ended, or long enough: the checker calls what has not stuck."""
    patience = timeout_seconds or 45 + 15 * world.lease_seconds
    ids = [work.job_id for work in works]
    query = "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND finished_at IS NULL"
    give_up_at = time.monotonic() + patience
    while world.sql(query, [ids])[0][0] and time.monotonic() < give_up_at:
        time.sleep(0.1)


def checker_of(world: World) -> Checker:
    s3 = world.servers.s3
    keys = {"access_key": s3.passwords.s3_access_key, "secret_key": s3.passwords.s3_secret_key}
    store = Minio(f"127.0.0.1:{s3.port}", secure=False, region="us-east-1", **keys)
    return Checker(world.database_url, store, world.system.settings.s3_bucket)


def _recovery(world: World, planned: Plan, strike: Strike) -> float | None:
    checker = checker_of(world)
    if strike.name != POISONED:
        return checker.recovery_seconds([*planned.works, planned.poison], strike.ended_at, strike.held)
    rows = world.sql("SELECT id FROM shards WHERE job_id = %s", [planned.poison.job_id])
    return checker.recovery_seconds([], strike.ended_at, [shard_id for (shard_id,) in rows])
