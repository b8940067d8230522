"""A worker that is asked to stop gives its work back; one that dies on an item costs that item and no other."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from orchestrator.domain.jobs import JobState
from tests.system import running_system

pytestmark = pytest.mark.services


def test_worker_that_is_stopped_gives_its_shards_back_at_once(
    environment: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    slow_lease = {"JANUS_LEASE_SECONDS": "120", "JANUS_HEARTBEAT_SECONDS": "20"}  # an expiry would take minutes
    models = f"stopped={tiny_checkpoint}"
    with (
        running_system(environment, tmp_path, models, workers=1, **slow_lease) as system,
        system.client() as client,
    ):
        job = client.generate([f"p{i}" for i in range(80)], model="stopped", images=2, shard_items=40)
        system.wait_until(lambda: job.refresh().items.finished > 4, "some items are finished", 60)
        system.kill("worker-0", signal.SIGTERM)
        kept = job.refresh().items.finished
        system.start_worker("worker-0")
        assert job.wait(120).state is JobState.completed
        events = [event.type for event in job.events()]
        assert len(list(job.results())) == 80
    assert kept > 4
    assert "shard.released" in events
    assert "shard.lease_expired" not in events


def test_long_shard_gives_way_and_loses_nothing(
    environment: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    models = f"long={tiny_checkpoint}"
    short_turns = {"JANUS_ATTEMPT_SECONDS": "1", "JANUS_SHARDS_IN_FLIGHT": "1"}
    with (
        running_system(environment, tmp_path, models, workers=1, **short_turns) as system,
        system.client() as client,
        system.client(system.make_key("patient")) as other,
    ):
        job = client.generate([f"p{i}" for i in range(150)], model="long", shard_items=150)
        system.wait_until(lambda: job.refresh().items.finished > 0, "the long shard runs", 60)
        short = other.generate(["mine"], model="long")
        assert short.wait(60).items.results == 1
        assert not job.refresh().state.ended  # the short one did not wait for the long one's end
        assert job.wait(120).items.results == 150
        assert job.verify().ok
        assert "shard.released" in [event.type for event in job.events()]


@pytest.mark.timeout(300)
def test_item_that_kills_its_worker_fails_alone(
    environment: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fast_lease = {"JANUS_LEASE_SECONDS": "2", "JANUS_HEARTBEAT_SECONDS": "0.5", "JANUS_MAX_CRASHES": "2"}
    models = f"poisoned={tiny_checkpoint}"
    with running_system(environment, tmp_path, models, workers=0, **fast_lease) as system:
        system.run("poisoned", "tests.poisoned_worker")
        with system.client() as client:
            system.wait_for_workers(1)
            prompts = [f"p{i}" for i in range(6)]
            prompts[2] = "poison"
            job = client.generate(prompts, model="poisoned", shard_items=6)
            give_up_at = time.monotonic() + 240
            while not job.refresh().state.ended and time.monotonic() < give_up_at:
                if system.processes["poisoned"].poll() is not None:
                    system.run("poisoned", "tests.poisoned_worker")  # what a supervisor does
                time.sleep(0.2)
            (failure,) = job.failures()
            results = list(job.results())
            assert job.verify().ok
    assert (failure.index, failure.code) == (2, "worker_crashed")
    assert [result["index"] for result in results] == list(range(6))
    assert sum("failure" in result for result in results) == 1
