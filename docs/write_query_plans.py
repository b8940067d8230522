"""docs/query-plans.md: what Postgres does for each query that runs often: `python docs/write_query_plans.py`

The functions of orchestrator/db are called on a large state, the statements that they issue are noted on their way, and
Postgres explains those very statements. `--explain NAME` prints the plans of one function and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqlalchemy import Engine, event, select, text  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from benchmarks.large_state import MODELS, NUM_TEAMS, Size, fill  # noqa: E402
from orchestrator.admin import migrate  # noqa: E402
from orchestrator.db import (  # noqa: E402
    backlog,
    deletion,
    events,
    expiry,
    jobs,
    leases,
    naming,
    nights,
    openai_batches,
    queueing,
    quotas,
    rates,
    shards,
    stored,
    teams,
    watching,
    webhooks,
    workers,
)
from orchestrator.db.ownership import confine  # noqa: E402
from orchestrator.db.session import connect, session_factory  # noqa: E402
from orchestrator.db.shards import ItemFailure  # noqa: E402
from orchestrator.db.tables import EventRow, FailureRow, JobRow, ShardRow  # noqa: E402
from orchestrator.domain.keys import new_key  # noqa: E402
from orchestrator.domain.shards import Part, ShardState  # noqa: E402
from orchestrator.domain.windows import Opening  # noqa: E402
from orchestrator.local.servers import Servers  # noqa: E402
from tests.system import settings_of  # noqa: E402

ROUNDS = 3
MODEL = MODELS[1]
NIGHT = "22:00-06:00 Europe/Berlin"
KEY = new_key()  # well formed, and of nobody
PAGE = ROOT / "docs" / "query-plans.md"


@dataclass(frozen=True)
class Query:
    """A function of orchestrator/db, and who calls it how often.

    Args:
        team: a confined session runs it, as a request of the API.
    """

    name: str
    who: str
    how_often: str
    call: Callable[[Session], Any]
    team: str | None = None


@dataclass
class Plan:
    """What one statement took, in milliseconds (median), and its nodes."""

    statement: str
    milliseconds: float
    buffers: int
    root: dict[str, Any]


def queries(session: Session) -> list[Query]:
    """The table of this page: every query that runs often, on rows that are there. A new one is a line here."""
    job = _one(session, JobRow, JobRow.state == "running")
    ended = _one(session, JobRow, JobRow.state == "completed")
    dispatched = _one(session, ShardRow, ShardRow.state == ShardState.dispatched)
    leased = _one(session, ShardRow, ShardRow.state == ShardState.leased)
    held = {(leased.id, leased.attempt): None, (leased.id + 1, 1): None}
    end = leased.first_index + 64
    part = Part("a new part", "0" * 64, 20_000, ((leased.first_index, end - 1),), ((end - 1, end),))
    failure = ItemFailure(end - 1, "photos/9.jpg", "image_unreadable", "it cannot be decoded", 1)
    now = datetime.now(UTC)
    keys = [f"jobs/{ended.id}/items/{64 * 27 * n:012d}.jsonl" for n in range(5)]
    keys += [f"jobs/{ended.id}/shards/{n}/1-0.jsonl" for n in range(1000)]
    waiting = _one(session, ShardRow, ShardRow.state == ShardState.waiting)
    each_model = "with each, for a model"
    tick = "every 0.5 s, or as soon as something was done"
    shard_start, shard_end = "once a shard", "once a shard"
    return [
        Query("queueing.take_back_closed", "dispatcher", tick, queueing.take_back_closed),
        Query("queueing.models_of_running_jobs", "dispatcher", tick, queueing.models_of_running_jobs),
        Query("queueing.run_windows", "dispatcher", each_model, lambda s: queueing.run_windows(s, MODEL)),
        Query("queueing.list_queued", "dispatcher", each_model, lambda s: queueing.list_queued(s, MODEL)),
        Query(
            "queueing.list_ready",
            "dispatcher",
            each_model,
            lambda s: queueing.list_ready(s, MODEL, open_windows=(), limit=16),
        ),
        Query("queueing.dispatch", "dispatcher", each_model, lambda s: queueing.dispatch(s, MODEL, [waiting.id])),
        Query(
            "quotas.uses_of",
            "dispatcher, API",
            "with each, where a team whose turn it is has a quota; a view of a job of such a team",
            lambda s: quotas.uses_of(s, [job.team_id], now.date()),
        ),
        Query("queueing.jobs_in_flight", "API", "once a page of jobs", lambda s: queueing.jobs_in_flight(s, [MODEL])),
        Query("jobs.expire", "reaper", "every second", jobs.expire),
        Query("shards.find_shard", "worker", shard_start, lambda s: shards.find_shard(s, dispatched.id)),
        Query(
            "leases.take_lease",
            "worker",
            shard_start,
            lambda s: leases.take_lease(s, dispatched.id, dispatched.attempt, worker_id="worker-1", lease_seconds=60),
        ),
        Query("jobs.get_job", "worker", shard_start, lambda s: jobs.get_job(s, job.id)),
        Query(
            "leases.append_part",
            "worker",
            "one to a few times a shard",
            lambda s: leases.append_part(s, leased.id, leased.attempt, part, [failure]),
        ),
        Query("leases.finish_shard_if_leased", "worker", shard_end, lambda s: _finish(s, leased, part)),
        Query("quotas.count_ended", "worker", shard_end, lambda s: quotas.count_ended(s, [(leased.job_id, 64)])),
        Query(
            "rates.add",
            "worker",
            shard_end,
            lambda s: rates.add(s, "worker-1", MODEL, "caption", num_items=64, work=64.0, seconds=10.0),
        ),
        Query("workers.beat", "worker", "every 20 s", lambda s: workers.beat(s, "worker-1")),
        Query("leases.renew_leases", "worker", "every 20 s", lambda s: leases.renew_leases(s, held, lease_seconds=60)),
        Query("leases.find_stops", "worker", "every second", lambda s: leases.find_stops(s, held)),
        Query("expiry.cancel_leftovers", "reaper", "every second", expiry.cancel_leftovers),
        Query("expiry.list_expired", "reaper", "every second", lambda s: expiry.list_expired(s, now)),
        Query(
            "queueing.models_with_dispatched_shards", "reconciler", "every 2 s", queueing.models_with_dispatched_shards
        ),
        Query(
            "queueing.take_unanswered",
            "reconciler",
            "every 2 s, for a model",
            lambda s: queueing.take_unanswered(s, MODEL, published_before=now - timedelta(seconds=15)),
        ),
        Query(
            "workers.models_served",
            "reconciler, API",
            "every 2 s, and with a view of an open job",
            workers.models_served,
        ),
        Query("jobs.list_unread", "four readers", "every 0.5 s and 2 s", jobs.list_unread),
        Query("jobs.list_to_finish", "four finishers", "every 0.5 s and 2 s", jobs.list_to_finish),
        Query(
            "shards.list_shards",
            "finisher, API",
            "once for 1000 shards of a job that ends; a page of results",
            lambda s: shards.list_shards(s, ended.id, from_index=64),
        ),
        Query(
            "deletion.mark_outdated",
            "cleaner",
            "every 2 s",
            lambda s: deletion.mark_outdated(s, keep_days=365, limit=20),
        ),
        Query("deletion.list_marked", "cleaner", "every 2 s", lambda s: deletion.list_marked(s, limit=20)),
        Query(
            "deletion.delete_rows",
            "cleaner",
            "once for 1000 rows of a job that goes",
            lambda s: deletion.delete_rows(s, ended.id, limit=1000),
        ),
        Query(
            "naming.orphans_of",
            "collector",
            "once for 1000 objects",
            lambda s: naming.orphans_of(s, ["jobs", ended.id], keys),
        ),
        Query(
            "naming.list_unused_uploads",
            "collector",
            "once for 1000 uploads",
            lambda s: naming.list_unused_uploads(s, now, after_id="", limit=1000),
        ),
        Query("stored.list_due", "meter", "every 5 s", lambda s: stored.list_due(s, now, limit=50)),
        Query("stored.sum_up", "meter", "every 20 s, for a team with a quota", lambda s: stored.sum_up(s, job.team_id)),
        Query("nights.windows_of_running_jobs", "reporter", "every 5 s", nights.windows_of_running_jobs),
        Query(
            "nights.list_untold",
            "reporter",
            "every 5 s, for a window",
            lambda s: nights.list_untold(s, NIGHT, Opening(now - timedelta(hours=8), now), waits=True, limit=100),
        ),
        Query("watching.count_open_jobs", "observer", "every 10 s", watching.count_open_jobs),
        Query("watching.count_open_shards", "observer", "every 10 s", watching.count_open_shards),
        Query("watching.oldest_queued", "observer", "every 10 s", watching.oldest_queued),
        Query("watching.count_workers", "observer", "every 10 s", watching.count_workers),
        Query("webhooks.claim", "deliverer", "every second", lambda s: webhooks.claim(s, now, limit=20)),
        Query("openai_batches.list_unread", "reader of batches", "every 0.5 s", openai_batches.list_unread),
        Query("openai_batches.list_to_finish", "finisher of batches", "every second", openai_batches.list_to_finish),
        Query("teams.find_caller", "API", "every request", lambda s: teams.find_caller(s, KEY.text)),
        Query(
            "jobs.count_open_jobs", "API", "a job is made", lambda s: jobs.count_open_jobs(s, job.team_id), job.team_id
        ),
        Query("jobs.get_job", "API", "a job is looked at", lambda s: jobs.get_job(s, job.id), job.team_id),
        Query("jobs.progress_of", "API", "an open job is looked at", lambda s: jobs.progress_of(s, [job]), job.team_id),
        Query(
            "rates.find_measured",
            "API",
            "an estimate; an open job is looked at that has no pace yet",
            lambda s: rates.find_measured(s, MODEL, "caption"),
        ),
        Query("backlog.list_backlog", "API", "an estimate", lambda s: backlog.list_backlog(s, MODEL), job.team_id),
        Query(
            "jobs.list_jobs",
            "API",
            "a page of jobs",
            lambda s: jobs.list_jobs(s, job.team_id, state=None, before=(now, "job_x"), limit=50),
            job.team_id,
        ),
        Query(
            "jobs.list_failures",
            "API",
            "a page of failures",
            lambda s: jobs.list_failures(s, ended.id, after_index=-1, limit=1000),
            ended.team_id,
        ),
        Query(
            "events.list_events",
            "API",
            "a page of events",
            lambda s: events.list_events(s, ended.id, after_id=0, limit=1000),
            ended.team_id,
        ),
    ]


def _one(session: Session, table: Any, condition: Any) -> Any:
    return session.scalars(select(table).where(condition).order_by(table.id).limit(1)).one()


def _finish(session: Session, leased: ShardRow, part: Part) -> None:
    """With the part before it, as the table refuses it else."""
    leases.append_part(session, leased.id, leased.attempt, part, [])
    session.flush()
    leases.finish_shard_if_leased(session, leased.id, leased.attempt)
    session.flush()


class Explainer:
    """Runs a query, notes its statements, and has Postgres explain each; nothing of it is kept."""

    def __init__(self, engine: Engine, *, rounds: int = ROUNDS) -> None:
        self._engine = engine
        self._rounds = rounds
        self._sessions = session_factory(engine)
        self._noted: list[tuple[str, Any]] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def explain(self, query: Query) -> list[Plan]:
        with self._sessions() as session:
            if query.team is not None:
                confine(session, query.team)
            self._noted.clear()
            query.call(session)
            session.flush()
            noted = list(self._noted)
            session.rollback()
        return [plan for k in range(len(noted)) if (plan := self._plan(noted, k)) is not None]

    def _plan(self, noted: list[tuple[str, Any]], k: int) -> Plan | None:
        """Of the k-th statement, behind those before it."""
        if not noted[k][0].startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            return None
        answers = []
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            for _ in range(self._rounds):
                with raw.cursor() as cursor:
                    for before in noted[:k]:
                        cursor.execute(*before)
                    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {noted[k][0]}", noted[k][1])
                    answers.append(cursor.fetchone()[0][0])
                raw.rollback()
        root = answers[-1]["Plan"]
        return Plan(
            noted[k][0],
            statistics.median(each["Execution Time"] + each["Planning Time"] for each in answers),
            root["Shared Hit Blocks"] + root["Shared Read Blocks"],
            root,
        )

    def _note(self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        self._noted.append((statement, parameters[0] if many else parameters))


def nodes(node: dict[str, Any], depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """A plan's nodes, the root first, with their depths."""
    yield depth, node
    for child in node.get("Plans", ()):
        yield from nodes(child, depth + 1)


def sequential_scans(plan: Plan) -> set[str]:
    """Tables of which the plan reads everything."""
    return {node["Relation Name"] for _, node in nodes(plan.root) if node["Node Type"] == "Seq Scan"}


def in_short(plan: Plan) -> str:
    """Where its rows come from, in the order of the plan, and how many in all."""
    steps: list[str] = []
    for _, node in nodes(plan.root):
        name = node.get("Index Name") or node.get("Relation Name")
        if name is None or node["Node Type"] in ("ModifyTable", "Bitmap Heap Scan"):
            continue
        count = round(node["Actual Rows"] * node["Actual Loops"])
        steps.append(f"{_KINDS.get(node['Node Type'], node['Node Type'])} `{name}` ({count})")
    return ", ".join(steps) or "no table"


_KINDS = {"Seq Scan": "**all of**", "Index Scan": "index", "Index Only Scan": "index", "Bitmap Index Scan": "index"}


@contextmanager
def large_database(size: Size) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="janus-plans-") as folder:
        servers = Servers(Path(folder))
        servers.start()
        engine = connect(servers.environment()["JANUS_DATABASE_URL"], statement_timeout_seconds=1200)
        try:
            migrate(settings_of(os.environ | servers.environment()))
            began = time.monotonic()
            with engine.connect() as connection:
                fill(connection, size)
            print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            yield engine
        finally:
            engine.dispose()
            servers.stop()


def render(size: Size, counts: str, explained: list[tuple[Query, list[Plan]]]) -> str:
    from benchmarks.system import cpu_name

    date, machine = f"{datetime.now(UTC):%Y-%m-%d}", f"{cpu_name()}, {os.cpu_count()} cores"
    lines = [HEAD.format(date=date, machine=machine, counts=counts)]
    for query, plans in explained:
        for number, plan in enumerate(plans):
            verb = plan.statement.split(maxsplit=1)[0]
            name = f"`{query.name}`" if not number else "and"
            who = f"{query.who}: {query.how_often}" if not number else ""
            lines.append(f"| {name} | {who} | {verb} | {plan.milliseconds:.1f} | {plan.buffers} | {in_short(plan)} |")
    return "\n".join(lines) + "\n" + TAIL


HEAD = """# Query plans

What Postgres does for every query that runs often, on a state as a large site has it. Written by
`python docs/write_query_plans.py`, which calls the functions of `orchestrator/db/`, notes the statements that they
issue and has Postgres explain those very statements (`EXPLAIN ANALYZE`), so that nothing here is a copy. A test
(`tests/integration/test_query_plans.py`) does the same on a smaller state and refuses a plan that reads all of
`shards`, `events` or `failures`. `--explain NAME` prints the plans of one function. For a query that is missing here,
add a line to the table in `queries`.

{date}, {machine}, shared with other work. The local stack's Postgres with its own settings (128 MB of shared
buffers), filled by `benchmarks/large_state.py`: {counts}.

*ms*: planning and execution, median of three with warm caches; *pages*: of 8 kB, from cache or disk. *Plan*: where rows
come from, in the order of the plan, and in brackets how many rows each gave. Of a function that issues several
statements, each has a row.

| function | who, how often | | ms | pages | plan |
|---|---|---|---|---|---|"""

TAIL = """
## What this page changed

What they took before, on 10,000 jobs and 1,980,000 shards, 117,968 of them waiting; the table above has the rest:

| function | before, ms | what it did, and what was changed |
|---|---|---|
| `jobs.list_to_finish` | 180.9 | Walked through the done shards of each running job to find an open one. |
| | | Now each open state is asked by its own index, which holds open shards only. |
| `jobs.list_unread` | 15.6 | Read every job of each team, ended ones too, to count those of the last minute. |
| | | Now indexes of jobs by `started_at` and `finished_at` say it, once for all teams. |
| `watching.count_open_shards` | 404.5 | Read the row of each open shard. Now counts by job in the indexes first. |
| `deletion.mark_outdated` | 8.8 | Went through all ended jobs, as no index answers for a clock that goes on. |
| | | Now compares with the transaction's time. |

## What is left

`naming.list_unused_uploads` reads uploads by their index in
pages; it runs when the collector does, in hours.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=Size.jobs)
    parser.add_argument("--shards", type=int, default=Size.shards)
    parser.add_argument("--explain", help="print the plans of this function, whole, and write nothing")
    options = parser.parse_args()
    size = Size(options.jobs, options.shards)
    with large_database(size) as engine:
        with session_factory(engine)() as session:
            known = queries(session)
            counts = count_rows(session)
        explainer = Explainer(engine)
        explained = []
        for query in known:
            if options.explain in (None, query.name):
                explained.append((query, explainer.explain(query)))
                print(
                    query.name, *(f"{plan.milliseconds:.1f}" for plan in explained[-1][1]), file=sys.stderr, flush=True
                )
    if options.explain is None:
        PAGE.write_text(render(size, counts, explained), encoding="utf-8")
    for _, plans in explained if options.explain else ():
        for plan in plans:
            print(plan.statement)
            for depth, node in nodes(plan.root):
                told = (
                    "Node Type",
                    "Relation Name",
                    "Index Name",
                    "Index Cond",
                    "Filter",
                    "Actual Rows",
                    "Actual Loops",
                    "Actual Total Time",
                )
                print("  " * depth, *(f"{node[name]}" for name in told if name in node), sep=" | ")


def count_rows(session: Session) -> str:
    """As a sentence of the page."""
    from sqlalchemy import func

    tables = {"jobs": JobRow, "shards": ShardRow, "events": EventRow, "failures": FailureRow}
    told = [f"{session.scalar(select(func.count()).select_from(table)):,} {name}" for name, table in tables.items()]
    states = select(ShardRow.state, func.count()).group_by(ShardRow.state).order_by(func.count().desc())
    told.append("of these " + ", ".join(f"{count:,} {state}" for state, count in session.execute(states)))
    sizes = [
        f"{name} {session.execute(text(f'SELECT pg_total_relation_size({name!r})')).scalar_one() / 2**20:,.0f} MB"
        for name in tables
    ]
    return f"{', '.join(told)}, {NUM_TEAMS} teams, {len(MODELS)} models. On the disk, with indexes: {', '.join(sizes)}"


if __name__ == "__main__":
    main()
