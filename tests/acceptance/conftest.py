"""One running system with two workers for all tests that do not hurt it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.database import environment, own_database
from tests.system import System, free_port, running_system

__all__ = ["environment"]


@pytest.fixture(scope="package")  # so that it is gone before the tests of other folders
def system(servers: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    logs = tmp_path_factory.mktemp("system")
    watched = {"JANUS_METRICS_PORT": str(free_port()), "JANUS_ALLOW_PRIVATE_WEBHOOKS": "true"}
    with (
        own_database(servers) as given,
        running_system(given, logs, f"tiny={tiny_checkpoint}", workers=2, **watched) as started,
    ):
        yield started


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small pictures of different shapes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(7)
    for number in range(12):
        pixels = rng.integers(0, 255, (40 + 5 * number, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{number:02d}.jpg")
    return folder


@pytest.fixture(scope="package")
def fast_system(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one worker whose engine computes nothing, for tests of what is around it."""
    with own_database(servers) as environment:
        system = System(environment, tmp_path_factory.mktemp("fast"), "chaos")
        try:
            system.start(0)
            system.run("worker", "tests.chaos.process", CHAOS_ROLE="worker", JANUS_WORKER_ID="fast")
            system.wait_for_workers(1)
            yield system
        finally:
            system.stop()
