"""How fast the dashboard's pages come: python benchmarks/dashboard.py

Ten thousand jobs of one team, and one of a million items, made as rows by SQL; its first lines lie in the store. Each
page is asked for by a browser that has signed in, one request at a time, on the product's own settings. Writes
benchmarks/dashboard_<cpu>_<yyyymm>.md.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from sqlalchemy import text  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from benchmarks.system import cpu_name, cpu_slug  # noqa: E402
from orchestrator.artifacts import open_store  # noqa: E402
from orchestrator.artifacts.base import ObjectStore  # noqa: E402
from orchestrator.db import teams, workers  # noqa: E402
from orchestrator.db.session import connect, session_factory  # noqa: E402
from orchestrator.domain.image_refs import ImageRef  # noqa: E402
from orchestrator.domain.items import Item  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import System, product_settings  # noqa: E402

JOBS, ITEMS, SHARD_ITEMS, FAILED_EVERY, ROUNDS = 10_000, 1_000_000, 64, 50, 30
BIG = "job_big"
JOB_ROWS = """
INSERT INTO jobs (id, team_id, name, kind, model, options, input, shard_items, state, num_items, num_results,
                  num_failures, created_at, started_at, finished_at)
SELECT 'job_' || n, :team, 'job ' || n, 'caption', 'm', '{"prompt": "?", "seed": 0}', '{}', 64, 'completed', 100, 98, 2,
       now() - make_interval(mins => n), now() - make_interval(mins => n), now()
FROM generate_series(1, :jobs) n"""
BIG_ROW = """
INSERT INTO jobs (id, team_id, name, kind, model, options, input, shard_items, state, num_items, started_at)
VALUES (:id, :team, 'a million items', 'caption', 'm', '{"prompt": "?", "seed": 0}', '{}', 64, 'running', :items,
        now() - interval '10 hours')"""
SHARD_ROWS = """
INSERT INTO shards (job_id, items_key, items_offset, items_bytes, first_index, num_items, state, attempt, finished_at,
                    parts, num_results, num_failures)
SELECT :id, 'items', 0, 0, n, least(64, :items - n), 'done', 1, now() - interval '10 hours' * random(),
       jsonb_build_array(jsonb_build_object('key', 'part', 'sha256', repeat('0', 64), 'num_bytes', 9000,
           'results', jsonb_build_array(jsonb_build_array(n, n + least(64, :items - n))), 'failures', '[]'::jsonb)),
       least(64, :items - n) - 1, 1
FROM generate_series(0, :items - 1, 64) n"""
FAILURE_ROWS = """
INSERT INTO failures (job_id, index, item_id, code, message, attempts)
SELECT :id, n, 'photo-' || n || '.jpg', (ARRAY['image_unreadable', 'image_too_large', 'engine_error'])[1 + n % 3],
       'items[' || n || '].image cannot be decoded', 1
FROM generate_series(0, :items - 1, :every) n"""
EVENT_ROWS = """
INSERT INTO events (job_id, shard_id, attempt, type) SELECT :id, n, 1, 'shard.done' FROM generate_series(1, 16000) n"""
PAGES = {
    "jobs": "/",
    "jobs, one state": "/?state=completed",
    "job of a million items, running": f"/jobs/{BIG}",
    "gallery, first page": f"/jobs/{BIG}/gallery",
    "gallery, from item 640,000": f"/jobs/{BIG}/gallery?index=640000",
    "item 640,000": f"/jobs/{BIG}/items/640000",
    "failures": f"/jobs/{BIG}/failures",
    "failures, one code": f"/jobs/{BIG}/failures?code=engine_error&after_index=639999",
    "new job": "/new",
    "workers": "/workers",
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="janus-bench-") as temporary:
        folder = Path(temporary)
        servers = Servers(folder / "servers")
        servers.start()
        system = System(servers.environment(), folder, "m", **product_settings())
        try:
            key = system.make_key("bench")
            fill(system)
            system.start_api()
            report = render(measure(system.url, key))
        finally:
            system.stop()
            servers.stop()
    (ROOT / "benchmarks" / f"dashboard_{cpu_slug()}_{datetime.now(UTC):%Y%m}.md").write_text(report, encoding="utf-8")
    print(report)


def fill(system: System) -> None:
    engine = connect(system.environment["JANUS_DATABASE_URL"], statement_timeout_seconds=600)
    store = open_store(system.settings)
    with session_factory(engine).begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
        workers.register_worker(session, "w", host="h", pid=1, models=["m"])
        team = teams.get_team(session, "bench").id
        write_rows(session, team)
        write_objects(session, store, team)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    store.close()
    engine.dispose()


def write_rows(session: Session, team: str) -> None:
    values = {"id": BIG, "team": team, "items": ITEMS, "jobs": JOBS, "every": FAILED_EVERY}
    for statement in (JOB_ROWS, BIG_ROW, SHARD_ROWS, FAILURE_ROWS, EVENT_ROWS):
        names = re.findall(r"(?<!:):([a-z]+)", statement)
        session.execute(text(statement), {name: values[name] for name in names})


def write_objects(session: Session, store: ObjectStore, team: str) -> None:
    """Items and parts of the shards that a page looks at; others lack theirs."""
    for first in (0, 640_000):
        for shard in range(first, first + 4096, SHARD_ITEMS):
            numbers = range(shard, shard + SHARD_ITEMS)
            items = [Item(n, f"photo-{n}.jpg", (ImageRef(f"uploads/{team}/u/{n}.jpg"),)) for n in numbers]
            lines = (
                {"index": n, "id": f"photo-{n}.jpg", "caption": "a photograph of something " * 8, "num_tokens": 40,
                 "finish_reason": "stop", "seed": n, "model": "m", "revision": "r"}
                for n in numbers
            )  # fmt: skip
            store.put(f"items-{shard}", b"".join(item.as_line().encode() + b"\n" for item in items))
            store.put(f"part-{shard}", b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        session.execute(
            text(
                "UPDATE shards SET items_key = 'items-' || first_index, items_bytes = 1000000, "
                "parts = jsonb_set(parts, '{0,key}', to_jsonb('part-' || first_index)) "
                "WHERE job_id = :id AND first_index >= :first AND first_index < :first + 4096"
            ).bindparams(first=first, id=BIG)
        )


def measure(url: str, key: str) -> dict[str, list[float]]:
    """Milliseconds of each page, the first two times left out."""
    with httpx.Client(base_url=url, timeout=60) as client:
        token = re.search(r'name="form_token" value="([^"]+)"', client.get("/sign-in").text)
        assert token is not None
        assert client.post("/sign-in", data={"form_token": token.group(1), "key": key}).status_code == 303
        took: dict[str, list[float]] = {name: [] for name in PAGES}
        for number in range(ROUNDS + 2):
            for name, path in PAGES.items():
                began = time.perf_counter()
                answer = client.get(path)
                milliseconds = 1000 * (time.perf_counter() - began)
                assert answer.status_code == 200, (path, answer.text)
                if number >= 2:
                    took[name].append(milliseconds)
    return took


def render(took: dict[str, list[float]]) -> str:
    lines = [
        "# The dashboard's pages",
        "",
        f"`python benchmarks/dashboard.py`, {datetime.now(UTC):%Y-%m-%d}: {cpu_name()}, {os.cpu_count()} cores, which "
        "API, Postgres and store share.",
        f"{JOBS:,} jobs of one team and one of {ITEMS:,} items in {ITEMS // SHARD_ITEMS:,} shards, "
        f"{ITEMS // FAILED_EVERY:,} of them failures. {ROUNDS} requests of each page, one at a time.",
        "",
        "| page | median, ms | 95th percentile, ms |",
        "|---|---|---|",
    ]
    for name, values in took.items():
        lines.append(f"| {name} | {statistics.median(values):.0f} | {statistics.quantiles(values, n=20)[-1]:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
