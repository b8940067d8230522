"""A database as a large site has it: many jobs of many teams, most of them over, some running, a few waiting.

Filled by Postgres itself, from numbers and without chance, in about a minute for a million shards. Objects that its
rows name do not exist.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, text

from orchestrator.domain.jobs import CaptionOptions

MODELS = ("janus-pro-1b", "janus-pro-7b", "janusflow-1.3b", "janus-1.3b")
NUM_TEAMS = 20
NUM_WORKERS = 1000  # alive; twice as many have gone
SHARDS_HELD = 2  # by each of them
DISPATCHED = 16  # of a model


@dataclass(frozen=True)
class Size:
    """shards: about so many.

    Of the jobs a tenth runs, one in a hundred is accepted, the rest has ended; the last has 100 times the shards of the
    others.
    """

    jobs: int = 10_000
    shards: int = 1_000_000

    @property
    def shards_of_job(self) -> int:
        return self.shards // self.jobs


def fill(connection: Connection, size: Size) -> None:
    """Into an empty database at head; commits, and gathers the planner's statistics."""
    values = {
        "teams": NUM_TEAMS,
        "jobs": size.jobs,
        "per_job": size.shards_of_job,
        "models": list(MODELS),
        "options": json.dumps(asdict(CaptionOptions())),
        "num_models": len(MODELS),
        "workers": NUM_WORKERS,
        "held": min(NUM_WORKERS * SHARDS_HELD, size.shards // 100),
        "dispatched": DISPATCHED,
    }
    for statement in _STATEMENTS:
        connection.execute(text(statement), values)
    connection.commit()
    connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))


# A job is the n-th of all; its number says what became of it: of ten, one runs.
_STATEMENTS = (
    "INSERT INTO teams (id, name) SELECT 'team_' || n, 'team ' || n FROM generate_series(1, :teams) n",
    """
    INSERT INTO keys (id, team_id, name, secret_sha256, scopes)
    SELECT 'key_' || n, 'team_' || 1 + n % :teams, 'key', repeat('0', 64), ARRAY['jobs:read']
    FROM generate_series(1, 10 * :teams) n
    """,
    """
    INSERT INTO models (name, family, revision) SELECT unnest(CAST(:models AS text[])), 'janus', 'sha256:0'
    """,
    """
    INSERT INTO workers (id, host, pid, models, heartbeat_at, started_at, stopped_at)
    SELECT 'worker-' || n, 'host-' || n / 8, n, ARRAY[(CAST(:models AS text[]))[1 + n % :num_models]],
           clock_timestamp() - interval '1 day' * (n / (:workers + 1)), clock_timestamp() - interval '9 days',
           CASE WHEN n > :workers THEN clock_timestamp() END
    FROM generate_series(1, 3 * :workers) n
    """,
    """
    INSERT INTO uploads (id, team_id)
    SELECT 'upl_' || n, 'team_' || 1 + n / 10 % :teams FROM generate_series(1, :jobs) n
    """,
    """
    INSERT INTO jobs (id, team_id, name, kind, model, options, input, shard_items, state, num_items, num_results,
                      num_failures, created_at, started_at, finished_at, idempotency_key, request_sha256,
                      manifest_sha256)
    SELECT 'job_' || n, 'team_' || 1 + n / 10 % :teams, 'job ' || n, 'caption',
           (CAST(:models AS text[]))[1 + n / 10 % :num_models],
           CAST(:options AS jsonb),
           jsonb_build_object('upload', 'upl_' || n), 64, state,
           CASE WHEN state = 'accepted' THEN 0 WHEN n = :jobs THEN :per_job * 6400 ELSE :per_job * 64 END,
           CASE WHEN state = 'completed' THEN :per_job * 64 - :per_job / 10 ELSE 0 END,
           CASE WHEN state = 'completed' THEN :per_job / 10 ELSE 0 END,
           clock_timestamp() - interval '1 minute' * (:jobs - n),
           CASE WHEN state <> 'accepted' THEN clock_timestamp() - interval '1 minute' * (:jobs - n) END,
           CASE WHEN state = 'completed' THEN clock_timestamp() - interval '1 minute' * (:jobs - n) END,
           'key of ' || n, repeat('0', 64), CASE WHEN state = 'completed' THEN repeat('0', 64) END
    FROM (SELECT n, CASE WHEN n % 10 = 0 THEN 'running' WHEN n % 100 = 1 THEN 'accepted' ELSE 'completed' END AS state
          FROM generate_series(1, :jobs) n) each
    """,
    # Of a job that runs two fifths are done.
    """
    INSERT INTO shards (job_id, items_key, items_offset, items_bytes, first_index, num_items, state, attempt,
                        finished_at, parts, num_results, num_failures)
    SELECT jobs.id, 'jobs/' || jobs.id || '/items/' || lpad((k / 27 * 27 * 64)::text, 12, '0') || '.jsonl',
           k % 27 * 9600, 9600, k * 64, 64,
           CASE WHEN done THEN 'done' ELSE 'waiting' END, CASE WHEN done THEN 1 ELSE 0 END,
           CASE WHEN done THEN clock_timestamp() END,
           CASE WHEN done THEN jsonb_build_array(jsonb_build_object(
               'key', 'jobs/' || jobs.id || '/shards/' || k || '/1-0.jsonl', 'sha256', md5(k::text) || md5(jobs.id),
               'num_bytes', 20000, 'results', jsonb_build_array(jsonb_build_array(k * 64, k * 64 + 64)),
               'failures', '[]'::jsonb)) ELSE '[]' END,
           CASE WHEN NOT done THEN 0 WHEN k % 10 = 9 THEN 63 ELSE 64 END,
           CASE WHEN done AND k % 10 = 9 THEN 1 ELSE 0 END
    FROM jobs CROSS JOIN generate_series(0, CASE WHEN jobs.id = 'job_' || :jobs THEN 100 ELSE 1 END * :per_job - 1) k
    CROSS JOIN LATERAL (SELECT jobs.state = 'completed' OR k < :per_job * 2 / 5 AS done) each
    WHERE jobs.state <> 'accepted'
    """,
    # Every worker holds some; the queues are full.
    """
    UPDATE shards SET state = 'leased', attempt = 1, lease_expires_at = clock_timestamp() + interval '1 hour',
                      worker_id = 'worker-' || 1 + turn % :workers
    FROM (SELECT shards.id, row_number() OVER (ORDER BY first_index, job_id) AS turn
          FROM shards JOIN jobs ON jobs.id = job_id WHERE shards.state = 'waiting') each
    WHERE each.id = shards.id AND turn <= :held
    """,
    """
    UPDATE shards SET state = 'dispatched', attempt = 1, dispatched_at = clock_timestamp(),
                      published_at = clock_timestamp()
    FROM (SELECT shards.id, row_number() OVER (PARTITION BY model ORDER BY first_index, job_id) AS turn
          FROM shards JOIN jobs ON jobs.id = job_id WHERE shards.state = 'waiting') each
    WHERE each.id = shards.id AND turn <= :dispatched
    """,
    """
    INSERT INTO failures (job_id, index, item_id, code, message, attempts)
    SELECT job_id, first_index + 9, 'photos/' || first_index, 'image_unreadable', 'items[9].image cannot be decoded.', 1
    FROM shards WHERE num_failures > 0
    """,
    """
    INSERT INTO events (job_id, shard_id, attempt, type)
    SELECT job_id, id, 1, 'shard.done' FROM shards WHERE state = 'done'
    """,
    "INSERT INTO events (job_id, type) SELECT id, 'job.accepted' FROM jobs",
)
