"""One attempt at one shard: take the lease, run, end it in one of five ways."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from orchestrator.artifacts.base import ObjectStore
from orchestrator.db import jobs, leases, shards
from orchestrator.db.leases import LeaseLost
from orchestrator.db.session import SessionFactory
from orchestrator.settings import Settings
from orchestrator.telemetry import bound, get_logger
from workers import metrics
from workers.attempt import Attempt
from workers.board import Board
from workers.engine_host import EngineHost
from workers.failures import WORLD_FAULTS
from workers.heartbeat import Heartbeat, Hold
from workers.inputs import Inputs
from workers.stopwatch import Stopwatch
from workers.turnstile import Turnstile


class Runner:
    """Runs attempts, several at once in threads of the pool."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        sessions: SessionFactory,
        store: ObjectStore,
        inputs: Inputs,
        heartbeat: Heartbeat,
        host: EngineHost,
    ) -> None:
        self.settings = settings
        self.worker_id = worker_id
        self.sessions = sessions
        self.store = store
        self.inputs = inputs
        self.heartbeat = heartbeat
        self.host = host
        self._turnstile = Turnstile()
        self._stopwatch = Stopwatch()
        self._board = Board(seconds=settings.attempt_seconds)

    def run(self, shard_id: int, attempt: int) -> None:
        """Run one attempt to whatever end it comes to; old messages end here at once."""
        with self.sessions() as session:
            shard = shards.find_shard(session, shard_id)
        is_suspect = shard is not None and shard.crashes > 0
        # The lease is taken only inside: a suspect that holds one is alone, so its next crash is its own.
        with self._turnstile.alone() if is_suspect else self._turnstile.together():
            if not self.heartbeat.draining:
                with bound(shard=shard_id, attempt=attempt):
                    metrics.ATTEMPTS.labels(self._run(shard_id, attempt)).inc()

    def _run(self, shard_id: int, attempt: int) -> str:
        log, began = get_logger(), time.monotonic()
        with self.sessions.begin() as session:
            shard = leases.take_lease(
                session, shard_id, attempt, worker_id=self.worker_id, lease_seconds=self.settings.lease_seconds
            )
            job = jobs.get_job(session, shard.job_id) if shard else None
            seconds_left = leases.seconds_left(session, shard) if shard else None
        if shard is None or job is None:
            log.info("message_is_old")
            return "old"
        with (
            bound(job=job.id, team=job.team_id),
            self.heartbeat.hold(shard_id, attempt) as hold,
            metrics.SHARDS_HELD.track_inprogress(),
            self._stopwatch.hold((job.model, job.kind)),
        ):
            running = Attempt(
                self.settings,
                self.sessions,
                self.store,
                self.inputs,
                self.host,
                self._board,
                job,
                shard,
                hold,
                seconds_left,
                self._stopwatch,
            )
            try:
                outcome = running.run()
            except LeaseLost:
                outcome = "lost"
            except WORLD_FAULTS as error:
                outcome = "released"
                log.warning("attempt_hit_a_fault", error=f"{type(error).__name__}: {error}"[:500])
                self._end(hold, running.save_and_release, str(error))
            except Exception as error:
                outcome = "crashed"
                log.error("attempt_crashed", exc_info=error)
                self._end(hold, self._expire, hold)
            seconds = round(time.monotonic() - began, 3)
            log.info("attempt_ended", outcome=outcome, model=job.model, kind=job.kind, seconds=seconds)
        return outcome

    def _expire(self, hold: Hold) -> None:
        with self.sessions.begin() as session:
            leases.expire_shard_if_leased(session, hold.shard_id, hold.attempt)

    def _end(self, hold: Hold, way: Callable[[Any], None], value: Any) -> None:
        try:
            way(value)
        except (LeaseLost, *WORLD_FAULTS) as error:
            # The reaper takes the shard back when the lease runs out.
            get_logger().warning("not_given_back", error=str(error)[:300])
