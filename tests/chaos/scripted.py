"""Runs without chance: every crash point once, and what the checker sees when a guard is switched off."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from tests.chaos.checker import Findings
from tests.chaos.engine import BOOK, STEP
from tests.chaos.faults import flush_queue
from tests.chaos.points import LEASES, Point
from tests.chaos.storm import checker_of, new_key, wait_for_end
from tests.chaos.work import Submitter, Work, pictures, poisoned
from tests.chaos.world import WORKERS, World


def hit(world: World, point: Point) -> tuple[bool, Findings]:
    """Make a process die at a point while it works on a job: whether it did, and what the checker found then."""
    world.replace(point.process, CHAOS_POINT=point.spec)
    world.wait_until_serving()
    victim = world.system.processes[point.process]
    if point.process in WORKERS or point.trouble == "flush":
        world.send("worker-1", signal.SIGSTOP)  # so that the victim is the one that comes there
    if point.trouble == "flush":
        world.send("worker-0", signal.SIGSTOP)
    work = poisoned("points", 6, 2, 3) if point.trouble == "poison" else pictures("points", 12, random.Random(0), 4)
    submitter = _client(world)
    submitter.submit(work, new_key())
    if point.trouble == "flush":
        _flush_when_published(world, work)
        world.calm()
    elif point.trouble == "pause":
        assert _wait_until(partial(_has_shard, world, work, "leased"))
        submitter.ask(work, "pause")
    elif point.trouble == "kill":
        assert _wait_until(partial(_has_shard, world, work, "leased"))
        for name in WORKERS:
            world.send(name, signal.SIGKILL)
    has_died = _wait_until(lambda: victim.poll() is not None, 40)
    world.calm()
    submitter.ask(work, "resume")
    submitter.close()
    wait_for_end(world, [work])
    return has_died, checker_of(world).check([work])


def repeats(world: World, book: Path, turns: int) -> tuple[int, Findings]:
    """A worker dies before its engine's turn of this number, in the middle of 64 items: how many answers more than
    items the engines gave in all.
    """
    usual = world.system.environment[STEP]
    # A turn is longer than it takes to store what the last ones gave, or more of that would be lost than of a real one.
    world.system.environment |= {BOOK: str(book), STEP: "0.5"}
    world.replace("worker-0", CHAOS_POINT=f"tests.chaos.engine:FastEngine.turn/before/kill/{turns}")
    world.replace("worker-1")
    world.wait_until_serving()
    victim = world.system.processes["worker-0"]
    world.send("worker-1", signal.SIGSTOP)
    work = pictures("repeated", 64, random.Random(3), 64)
    submitter = _client(world)
    submitter.submit(work, new_key())
    submitter.close()
    assert _wait_until(lambda: victim.poll() is not None), "worker-0 never took so many turns"
    world.calm()
    wait_for_end(world, [work])
    del world.system.environment[BOOK]
    world.system.environment[STEP] = usual
    answered = Counter(book.read_text().splitlines())
    asked = sum(item.code is None for item in work.items)
    assert len(answered) == asked
    return answered.total() - asked, checker_of(world).check([work])


def dead_worker(world: World) -> Findings:
    """Both workers are killed while they hold shards; only the reaper can take these back."""
    work = pictures("reaped", 96, random.Random(0), 24)
    submitter = _client(world)
    submitter.submit(work, new_key())
    assert _wait_until(partial(_has_shard, world, work, "leased"))
    for name in WORKERS:
        world.send(name, signal.SIGKILL)
    return _end(world, submitter, work)


def wiped_queue(world: World) -> Findings:
    """The queue is wiped while shards wait in it; only the reconciler can publish them again."""
    work = pictures("reconciled", 96, random.Random(0), 24)
    submitter = _client(world)
    for name in WORKERS:
        world.send(name, signal.SIGSTOP)
    submitter.submit(work, new_key())
    _flush_when_published(world, work)
    return _end(world, submitter, work)


def zombie(world: World) -> Findings:
    """A worker freezes with a part in its hand and wakes when another has the shard; only the fence can stop it."""
    world.replace("worker-0", CHAOS_POINT=f"{LEASES}:append_part/before/freeze")
    world.wait_until_serving()
    old = psutil.Process(world.pid("worker-0"))
    world.send("worker-1", signal.SIGSTOP)
    work = pictures("fenced", 48, random.Random(0), 48)
    submitter = _client(world)
    submitter.submit(work, new_key())
    assert _wait_until(lambda: old.status() == psutil.STATUS_STOPPED), "worker-0 never came to its first part"
    world.send("worker-1", signal.SIGCONT)
    query = "SELECT 1 FROM shards WHERE job_id = %s AND attempt > 1 AND num_results > 0"
    assert _wait_until(lambda: bool(world.sql(query, [work.job_id]))), "the shard never ran elsewhere"
    return _end(world, submitter, work)


BLIND: dict[str, Callable[[World], Findings]] = {"reaper": dead_worker, "reconciler": wiped_queue, "fence": zombie}


def _end(world: World, submitter: Submitter, work: Work) -> Findings:
    submitter.close()
    world.calm()
    wait_for_end(world, [work], timeout_seconds=10 * world.lease_seconds)
    return checker_of(world).check([work])


def _flush_when_published(world: World, work: Work) -> None:
    assert _wait_until(partial(_has_shard, world, work, "dispatched"))
    time.sleep(0.5)  # the messages come after the commit
    flush_queue(world)


def _client(world: World) -> Submitter:
    key = world.system.make_key(f"scripted-{time.time_ns()}")
    return Submitter(world.system.url, key, patience_seconds=60)


def _has_shard(world: World, work: Work, state: str) -> bool:
    return bool(world.sql("SELECT 1 FROM shards WHERE job_id = %s AND state = %s LIMIT 1", [work.job_id, state]))


def _wait_until(holds: Callable[[], bool], timeout_seconds: float = 20) -> bool:
    give_up_at = time.monotonic() + timeout_seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True
