"""Faults of the processes that do the work: a dispatcher that is away, silent workers, shards that nobody takes."""

from __future__ import annotations

from sqlalchemy.orm import Session

from orchestrator.db import watching, workers
from orchestrator.db.session import database_now
from orchestrator.diagnosis.findings import Fault
from orchestrator.domain.shards import ShardState

DISPATCHER_SILENCE_SECONDS = 30.0  # its reaper alone asks Postgres every second
QUEUED_SECONDS = 60.0


def dispatcher(session: Session) -> str:
    """It always holds connections to Postgres, and says something on one of them each second."""
    silence = watching.dispatcher_silence_seconds(session)
    if silence is None:
        raise Fault(
            "none is connected to this database: jobs stay accepted and shards wait. Start one with "
            "`janus dispatcher` (`docker compose up -d dispatcher`); if one runs, its log says why it cannot connect."
        )
    if silence > DISPATCHER_SILENCE_SECONDS:
        raise Fault(f"it has said nothing to Postgres for {silence:.0f} s: it hangs. Look at its log and restart it.")
    return "one is at work"


def heartbeats(session: Session) -> str:
    if silent := watching.list_silent_workers(session):
        told = "; ".join(f"{w.id} ({', '.join(w.models)}) for {w.seconds:.0f} s" for w in silent[:5])
        more = f", and {len(silent) - 5} more" if len(silent) > 5 else ""
        raise Fault(
            f"no heartbeat of {told}{more}. It was killed, or cannot reach Postgres: look at its log on that host and "
            "start it again. Its shards went to others. One that is gone for good is forgotten after a day."
        )
    alive = sum(worker.alive for worker in workers.list_workers(session))
    return f"{alive} workers beat, and none went silent"


def models(session: Session) -> str:
    if unserved := watching.count_unserved_jobs(session):
        told = "; ".join(f"{count} open jobs ask for {model}" for model, count in sorted(unserved.items()))
        name = min(unserved)
        raise Fault(
            f"{told}, which no live worker serves. Start one with `janus worker --model {name}` (local stack: "
            f"`janus up --model {name}`), or cancel the jobs."
        )
    return "a live worker serves every model that open jobs ask for"


def queue(session: Session) -> str:
    """A worker with nothing in hand takes a message in milliseconds."""
    now = database_now(session)
    counts, served = watching.count_open_shards(session), workers.models_served(session)
    for model, dispatched_at in watching.oldest_queued(session).items():
        age = (now - dispatched_at).total_seconds()
        idle = not counts.get((model, ShardState.leased))
        if idle and model in served and age > QUEUED_SECONDS:
            num = counts[model, ShardState.dispatched]
            raise Fault(
                f"{num} shards of {model} wait in Redis, the oldest for {age:.0f} s, and its workers, which "
                "beat, hold none. Do dispatcher and workers have the same JANUS_REDIS_URL? Look at a worker's log and "
                "restart it; one that hears nothing ends itself after JANUS_STUCK_SECONDS."
            )
    waiting = sum(count for (_, state), count in counts.items() if state == ShardState.waiting)
    return f"no shard waits for a worker that has nothing to do ({waiting} wait for their turn)"


def merging(session: Session) -> str:
    if jobs := watching.list_unmergeable_jobs(session):
        job_id, reason = jobs[0]
        raise Fault(f"{len(jobs)} jobs cannot be finished; {job_id}: {reason}")
    return "no job has results that cannot be merged"
