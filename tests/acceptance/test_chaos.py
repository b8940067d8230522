"""Workers die, the queue is wiped, Postgres restarts, the store goes away: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from orchestrator.domain.jobs import JobState
from tests.system import running_system

pytestmark = pytest.mark.services
NUM_ITEMS = 2000
SEED = 20261122


@pytest.mark.timeout(900)
def test_job_survives_kills_a_wiped_queue_and_a_database_restart(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.local.servers import Servers

    servers: Any = Servers(tmp_path / "servers")
    servers.start()
    dice = random.Random(SEED)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"i{n}", "prompt": f"picture {n}"}) + "\n" for n in range(NUM_ITEMS)))
    faults = ["kill", "kill", "kill", "flush", "flush", "postgres", "store", "drain"]
    dice.shuffle(faults)
    try:
        with (
            running_system(servers.environment(), tmp_path / "logs", f"tiny={tiny_checkpoint}", workers=2) as system,
            system.client() as client,
        ):
            job = client.generate(file=prompts, shard_items=50)
            other = client.generate([f"never mind {n}" for n in range(300)], shard_items=30, priority=-1)
            done = []
            for number, fault in enumerate(faults):
                threshold = NUM_ITEMS * (number + dice.random()) / (len(faults) + 1)
                system.wait_until(
                    lambda threshold=threshold: job.refresh().items.finished >= threshold, f"{threshold:.0f} items", 300
                )
                done.append((fault, job.view.items.finished))
                if number == len(faults) // 2:
                    other.cancel()
                _strike(fault, system, servers, dice)
            view = job.wait(300)
            given_up = other.wait(60)
            assert given_up.items.results + given_up.items.failures + given_up.items.cancelled == 300
            assert other.verify().ok
            results = list(job.results())
            verified = job.verify()
            events = [event.type for event in job.events()]
    finally:
        servers.stop()
    with capsys.disabled():
        expired, lost = events.count("shard.lease_expired"), verified.problems
        print(f"\nfaults at items: {done}; leases expired: {expired}; {view.items}; problems: {lost}")
    assert view.state is JobState.completed
    assert view.items.results + view.items.failures == NUM_ITEMS
    assert view.items.failures == 0
    assert [result["index"] for result in results] == list(range(NUM_ITEMS))
    assert len({result["id"] for result in results}) == NUM_ITEMS
    assert verified.ok, verified.problems
    assert events.count("shard.lease_expired") >= 1


def _strike(fault: str, system: Any, servers: Any, dice: random.Random) -> None:
    time.sleep(dice.random())
    if fault == "kill":
        name = dice.choice([name for name in system.processes if name.startswith("worker")])
        system.kill(name)
        system.start_worker(name)
    elif fault == "drain":
        system.kill("worker-0", signal.SIGTERM)
        system.start_worker("worker-0")
    elif fault == "store":
        servers.s3.kill()
        time.sleep(4)
        servers.s3.start()
    elif fault == "flush":
        with Redis.from_url(system.environment["JANUS_REDIS_URL"]) as redis:
            redis.flushall()
    else:
        servers.postgres.restart()
