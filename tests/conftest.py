"""Real servers for the tests that need them: started once, in a folder that goes away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Postgres, Valkey and S3 on loopback ports."""
    from orchestrator.local.servers import Servers

    started = Servers(tmp_path_factory.mktemp("servers"))
    started.start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small randomly initialised checkpoint; what it says and draws means nothing."""
    from janus_core.checkpoints.random import write_random_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_random_checkpoint(folder)
    return folder
