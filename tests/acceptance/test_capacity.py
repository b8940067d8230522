"""Rates that real workers measure, estimates from them, and quotas, through the whole system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.client import InvalidRequest
from tests.system import System

pytestmark = pytest.mark.services


def test_an_estimate_is_what_workers_measured(system: System, photos: Path, tmp_path: Path) -> None:
    """Before that it says that nothing was, of a kind that nobody asked for."""
    with system.client(system.make_key("planners")) as client:
        done = client.caption(photos, model="tiny", max_tokens=7, reuse=False)
        assert done.wait(120).items.results == 12
        told = client.estimate("caption", photos, max_tokens=7)
        assert told.items == 12
        assert told.measured is not None
        assert told.measured.items >= 12
        assert 1 <= told.measured.workers <= told.workers == 2
        assert told.seconds is not None
        assert told.ends_at is not None
        assert 0 < told.seconds < 600
        again = client.estimate("caption", num_items=12_000, max_tokens=7)
        assert again.seconds is not None
        assert again.seconds > told.seconds
        assert [job.id for job in client.jobs()] == [done.id], "nothing was made"
    out = ("--model", "tiny", "--out", str(tmp_path / "captions.jsonl"))
    said = system.janus("caption", str(photos), *out, "--estimate", "--window", "22:00-06:00 Europe/Berlin")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("12 items of a caption job of tiny: ")
    assert "measured: " in said.stdout
    assert "it fits" in said.stdout
    assert not (tmp_path / "captions.jsonl").exists()
    as_json = system.janus("generate", "a cat", "a dog", *out, "--images", "3", "--estimate", "--json")
    assert (json.loads(as_json.stdout)["items"], as_json.returncode) == (2, 0)


def test_quotas_are_set_and_kept(system: System, photos: Path) -> None:
    key = system.make_key("frugal")
    with system.client(key) as client, system.client() as operator:
        team = client.whoami().team.id
        said = system.janus("teams", "quota", team, "--per-day", "8", "--stored-bytes", "1GB")
        assert said.returncode == 0, said.stderr
        assert "items a day\t0\t8" in said.stdout
        assert "stored bytes\tnot measured\t1000000000 (1.00 GB)" in said.stdout
        job = client.caption(photos, model="tiny", max_tokens=3, shard_items=4, reuse=False)

        def waits() -> bool:
            return "8 items a day is used; it goes on at 00:00 UTC" in (job.refresh().waiting_reason or "")

        system.wait_until(waits, "the day is used up", 60)
        assert job.view.items.results == 8
        assert client.quota().per_day.used == 8
        system.wait_until(lambda: (client.quota().stored_bytes.used or 0) > 0, "its bytes are measured", 60)
        stored = client.quota().stored_bytes.used
        assert stored is not None
        operator.set_quota(team, stored_bytes=stored)
        with pytest.raises(InvalidRequest, match=f"keeps {stored} bytes .* its quota is {stored} bytes"):
            client.caption(photos, model="tiny")
        assert job.wait(60).items.results == 12, "a day has no limit now, and what was begun is finished"
    assert system.janus("teams", "quota", team, "--in-flight", "0").returncode == 2
    assert "none" in system.janus("teams", "quota", team, "--stored-bytes", "none").stdout
