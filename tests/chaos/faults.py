"""The faults, each a function that strikes and returns when the fault has ended."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from redis import Redis

from orchestrator.db.queueing import Message
from orchestrator.dispatch.broker import CeleryBroker
from orchestrator.transport import lists_of
from tests.chaos.process import SIGNAL
from tests.chaos.world import WORKERS, World


@dataclass(frozen=True)
class Strike:
    """A fault that has ended.

    Args:
        ended_at: on the database's clock.
        held: shards that it struck, in a worker's hands or in the queue; it is recovered from when all of them are
            finished. Of a fault that struck everything, it is empty: then the next shard that is finished counts.
    """

    name: str
    ended_at: Any
    held: tuple[int, ...] = ()


Fault = Callable[[World, random.Random], list[int]]


def strike(name: str, world: World, dice: random.Random) -> Strike:
    held = FAULTS[name](world, dice)
    return Strike(name, world.now(), tuple(held))


def _worker_killed(world: World, dice: random.Random) -> list[int]:
    name = dice.choice(WORKERS)
    held = world.held_by(name)
    world.send(name, signal.SIGKILL)
    return held


def _worker_drained(world: World, dice: random.Random) -> list[int]:
    name = dice.choice(WORKERS)
    held = world.held_by(name)
    world.send(name, signal.SIGTERM)
    return held


def _worker_frozen(world: World, dice: random.Random) -> list[int]:
    """Past its lease, so that the shard runs elsewhere when the old worker wakes."""
    name = dice.choice(WORKERS)
    world.send(name, signal.SIGSTOP)
    held = world.held_by(name)
    time.sleep(1.5 * world.lease_seconds + 1)
    world.send(name, signal.SIGCONT)
    return held


def _dispatcher_killed(world: World, dice: random.Random) -> list[int]:
    world.send("dispatcher", signal.SIGKILL)
    return []


def _api_killed(world: World, dice: random.Random) -> list[int]:
    world.send("api", signal.SIGKILL)
    return []


def _queue_flushed(world: World, dice: random.Random) -> list[int]:
    lost = world.sql("SELECT id FROM shards WHERE state = 'dispatched'")
    flush_queue(world)
    return [shard_id for (shard_id,) in lost]


def flush_queue(world: World) -> None:
    with Redis.from_url(world.servers.valkey.url) as redis:
        redis.flushall()


def _queue_away(world: World, dice: random.Random) -> list[int]:
    world.servers.valkey.stop()
    time.sleep(world.outage_seconds)
    world.servers.valkey.start()
    return []


def _database_restarted(world: World, dice: random.Random) -> list[int]:
    world.servers.postgres.restart()
    return []


def _database_killed(world: World, dice: random.Random) -> list[int]:
    world.servers.postgres.kill()
    world.servers.postgres.start()
    return []


def _connections_ended(world: World, dice: random.Random) -> list[int]:
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    return []


def _store_killed(world: World, dice: random.Random) -> list[int]:
    world.servers.s3.kill()
    time.sleep(world.outage_seconds)
    world.servers.s3.start()
    return []


def _store(mode: str) -> Fault:
    def answer_so(world: World, dice: random.Random) -> list[int]:
        world.proxy.set(mode)
        time.sleep(world.outage_seconds)
        world.proxy.set("pass")
        return []

    return answer_so


def _clock_jumps(world: World, dice: random.Random) -> list[int]:
    """One process's clock is minutes off, and stays so until it is started again."""
    name = dice.choice((*WORKERS, "dispatcher", "api"))
    world.clock.write_text(str(dice.choice((-1, 1)) * dice.randrange(60, 800)))
    world.send(name, SIGNAL)
    return world.held_by(name)


def _messages_repeated(world: World, dice: random.Random) -> list[int]:
    """Three copies of a message for every attempt there ever was, and the whole queue in another order."""
    query = "SELECT id, attempt FROM shards WHERE attempt > 0 ORDER BY id DESC LIMIT 100"
    pairs = [(shard_id, attempt) for shard_id, newest in world.sql(query) for attempt in range(1, newest + 1)]
    copies = [Message(shard_id, attempt, "chaos") for shard_id, attempt in pairs * 3]
    dice.shuffle(copies)
    CeleryBroker(world.system.settings).publish(copies)
    with Redis.from_url(world.servers.valkey.url) as redis:
        for name in lists_of("chaos"):
            waiting = redis.lrange(name, 0, -1)
            dice.shuffle(waiting)
            if waiting:
                redis.pipeline(transaction=True).delete(name).rpush(name, *waiting).execute()
    return []


FAULTS: dict[str, Fault] = {
    "worker_killed": _worker_killed,
    "worker_drained": _worker_drained,
    "worker_frozen": _worker_frozen,
    "dispatcher_killed": _dispatcher_killed,
    "api_killed": _api_killed,
    "queue_flushed": _queue_flushed,
    "queue_away": _queue_away,
    "messages_repeated": _messages_repeated,
    "database_restarted": _database_restarted,
    "database_killed": _database_killed,
    "connections_ended": _connections_ended,
    "store_killed": _store_killed,
    "store_dropping": _store("down"),
    "store_slow": _store("slow"),
    "store_busy": _store("busy"),
    "store_full": _store("full"),
    "clock_jumped": _clock_jumps,
}
POISONED = "item_poisoned"  # struck by the storm itself: a job with an item that kills its worker
