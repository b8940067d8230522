"""A job leaves its marks in the metrics and the logs of every process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system import System

pytestmark = pytest.mark.services


def log_lines(system: System, pattern: str) -> Iterator[dict[str, Any]]:
    for path in system.logs.glob(pattern):
        yield from (json.loads(line) for line in path.read_text().splitlines() if line.startswith("{"))


def scrape(system: System) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sums over all processes that said where they serve metrics: labels to values, by name."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    ports = [line["port"] for line in log_lines(system, "*.log") if line["event"] == "metrics_served"]
    assert len(ports) == len(set(ports)) == 4, "API, dispatcher, two workers"
    for port in ports:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            values, labels = found.setdefault(sample.name, {}), tuple(sorted(sample.labels.items()))
            values[labels] = values.get(labels, 0.0) + sample.value
    return found


def test_job_leaves_its_marks_in_metrics_and_logs(system: System, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with system.client() as client:
        before = scrape(system)
        pictures = [photos, tmp_path / "broken.jpg"]
        job = client.caption(pictures, model="tiny", max_tokens=5, shard_items=4, reuse=False)
        job.wait(60)
        drawn = client.generate(["a", "b"], model="tiny", reuse=False).wait(60)
        team = client.whoami().team.id
    assert drawn.items.results == 2
    seen = scrape(system)

    def grew(name: str, **labels: str) -> float:
        """By how much the series with these labels grew."""
        wanted = set(labels.items())
        sums = [sum(v for k, v in now.get(name, {}).items() if wanted <= set(k)) for now in (before, seen)]
        return sums[1] - sums[0]

    def is_counted() -> bool:
        """What is counted after the commit that the client saw."""
        nonlocal seen
        seen = scrape(system)
        return grew("janus_attempts_total") == 5 and grew("janus_jobs_ended_total") == 2

    system.wait_until(is_counted, "everything is counted")
    assert grew("janus_items_total", kind="caption", outcome="result") == 12
    assert grew("janus_items_total", outcome="failure", error_code="image_unreadable") == 1
    assert grew("janus_items_total", kind="generate") == 2
    assert grew("janus_attempts_total", outcome="done") == 5
    assert grew("janus_shards_published_total") == 5
    assert grew("janus_jobs_ended_total", state="completed") == 2
    assert grew("janus_engine_images_total", model="tiny") == 2
    assert 12 <= grew("janus_engine_tokens_total", model="tiny") <= 12 * 5
    assert grew("janus_engine_row_turns_total") >= grew("janus_engine_turns_total") > 0
    assert grew("janus_engine_turn_seconds_total") > 0
    stages = {stage: grew("janus_stage_seconds_count", stage=stage) for stage in ("fetch", "decode", "wait", "store")}
    assert 4 <= stages.pop("fetch") == stages.pop("decode") <= 13, "several items at a time"
    assert stages == {"wait": 14, "store": 2}
    assert grew("janus_stage_seconds_count", stage="compute") == 14
    assert grew("janus_stage_seconds_count", stage="flush") >= 5
    assert grew("janus_http_requests_total", method="POST", route="/v1/jobs", status="201") == 2
    assert grew("janus_store_request_seconds_count", method="PUT", status="2xx") > 5
    assert grew("janus_dispatcher_round_seconds_count", duty="dispatcher") > 0
    assert sum(seen["janus_worker_model_loaded"].values()) == 2
    assert sum(seen["janus_worker_shards_held"].values()) == 0
    assert sum(seen["janus_engine_rows"].values()) == 0

    (created,) = [line for line in log_lines(system, "api.log") if line.get("job") == job.id]
    (ended,) = [
        line for line in log_lines(system, "dispatcher.log") if line["event"] == "job_ended" and line["job"] == job.id
    ]
    attempts = [line for line in log_lines(system, "worker-*.log") if line.get("job") == job.id]
    assert created["event"] == "job_created"
    assert created["request_id"].startswith("req_")
    assert (ended["process"], ended["state"], ended["results"], ended["failures"]) == ("dispatcher", "completed", 12, 1)
    assert ended["duty"].startswith("finisher")
    assert len(attempts) == 4, "one line a shard, none an item"
    assert {line["team"] for line in (created, ended, *attempts)} == {team}
    for line in attempts:
        assert (line["event"], line["outcome"], line["process"], line["attempt"]) == (
            "attempt_ended",
            "done",
            "worker",
            1,
        )
        assert line["worker"].startswith("worker-")
        assert line["shard"] > 0


def test_dispatcher_shows_the_whole_system(system: System) -> None:
    def seen() -> bool:
        workers = scrape(system).get("janus_workers", {})
        return workers.get((("model", "tiny"), ("state", "alive"))) == 2

    system.wait_until(seen, "the observer has looked", 30)
    found = scrape(system)
    assert found["janus_queue_depth"][(("model", "tiny"),)] == 0
    assert found["janus_shard_ready_age_seconds"][(("model", "tiny"),)] == 0
    assert set(found["janus_jobs"]) == {(("state", s),) for s in ("accepted", "running", "paused", "finishing")}
    assert found["janus_worker_heartbeat_age_seconds"][(("model", "tiny"),)] < 60
    assert (("table", "shards"),) in found["janus_database_dead_rows"]
