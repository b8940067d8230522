"""A short storm, the crash points that matter most, and what a killed worker costs; `make chaos` has the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import scripted, storm
from tests.chaos.points import POINTS
from tests.chaos.world import World

pytestmark = pytest.mark.services

EVERY_DAY = [
    "dispatcher: before publish",
    "worker: after the lease",
    "worker: between flush and commit",
    "finisher: merged, nothing stored",
]
STORM = ["worker_killed", "queue_away", "worker_frozen", "connections_ended", "store_full"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    started = World(tmp_path_factory.mktemp("chaos"), step_seconds=0.08)
    yield started
    started.close()


@pytest.mark.timeout(300)
def test_storm_loses_nothing_and_does_nothing_twice(world: World) -> None:
    outcome = storm.run(world, storm.plan(20261126, 600, STORM))
    assert outcome.findings.ok, outcome.findings
    assert outcome.findings.items == 600


@pytest.mark.parametrize("name", EVERY_DAY)
def test_process_that_dies_at_a_crash_point_costs_nothing(world: World, name: str) -> None:
    (point,) = (point for point in POINTS if point.name == name)
    has_died, findings = scripted.hit(world, point)
    assert has_died
    assert findings.ok, findings


def test_worker_that_dies_in_the_middle_of_a_shard_repeats_eight_items_at_most(world: World, tmp_path: Path) -> None:
    repeated, findings = scripted.repeats(world, tmp_path / "book", turns=9)
    assert findings.ok, findings
    assert 0 <= repeated <= 8


@pytest.mark.timeout(300)
def test_checker_sees_what_a_frozen_worker_does_without_the_fence(world: World) -> None:
    world.set_off("fence")
    findings = scripted.zombie(world)
    world.set_off("")
    assert findings.twice
    assert not findings.ok
