"""Jobs and shards under any interleaving of what may happen to them, beside a model that is a few dictionaries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, leases, queueing, shards, teams, workers
from orchestrator.db.leases import LeaseLost
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import FailureRow, JobRow, ShardRow
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.finisher import Finisher
from orchestrator.dispatch.reader import Reader
from orchestrator.dispatch.reaper import Reaper
from orchestrator.dispatch.reconciler import Reconciler
from orchestrator.domain.errors import Conflict
from orchestrator.domain.jobs import GenerateOptions, JobKind, JobState
from orchestrator.domain.shards import Part, finished_indexes, runs_of
from tests.fakes import ListBroker

pytestmark = pytest.mark.services

NUM_ITEMS, SHARD_ITEMS, MAX_CRASHES = 10, 5, 2
EXAMPLES = int(os.environ.get("JANUS_TEST_EXAMPLES", "25"))  # more of them by hand
STEPS = 40
which = st.integers(0, 10**6)  # picks one of what there is


@dataclass
class ModelShard:
    """What a shard should be."""

    items: range
    state: str = "waiting"
    attempt: int = 0
    crashes: int = 0


@dataclass
class Attempt:
    """An attempt that took its lease once; what it knew then is what it goes by, dead or alive."""

    shard_id: int
    number: int
    todo: list[int]
    num_parts: int = 0


@dataclass
class ModelJob:
    """What a job should be: `finished` says of each finished item whether it is a result."""

    id: str
    num_items: int
    shards: dict[int, ModelShard] = field(default_factory=dict)
    finished: dict[int, bool] = field(default_factory=dict)
    is_cancelled: bool = False
    is_late: bool = False
    is_paused: bool = False
    has_ended: bool = False


class JobsAndShards(RuleBasedStateMachine):
    """Two jobs of two shards, three at most by retries."""

    def __init__(self, sessions: SessionFactory, store: S3Store) -> None:
        super().__init__()
        self.sessions, self.store, self.broker = sessions, store, ListBroker()
        self.model = f"m{os.urandom(6).hex()}"  # of its own, so that examples do not see each other's shards
        self.dispatcher = Dispatcher(sessions, self.broker, queue_depth=3)
        self.reconciler = Reconciler(sessions, self.broker, republish_seconds=10)
        self.reaper = Reaper(sessions, store, max_crashes=MAX_CRASHES)
        self.finisher = Finisher(sessions, store)
        self.reader = Reader(sessions, store, max_item_line_bytes=2**16)
        self.jobs: list[ModelJob] = []
        self.messages: list[queueing.Message] = []  # every one that was ever published
        self.attempts: list[Attempt] = []
        with sessions.begin() as session:
            team_id = teams.create_team(session, self.model).id
            workers.register_worker(session, self.model, host="h", pid=1, models=[self.model])
            made = [self._create(session, team_id, priority) for priority in (0, 1)]
        for job_id in made:
            self._read(job_id)

    # --- What may happen ------------------------------------------------------------------------------------------

    @rule()
    def dispatch(self) -> None:
        self.broker.published.clear()
        self.dispatcher.run_once(self._now())
        ours = [message for message in self.broker.published if message.model == self.model]
        for message in ours:
            job, shard = self._find(message.shard_id)
            assert (shard.state, message.attempt) == ("waiting", shard.attempt + 1)
            assert not job.is_paused
            assert not job.is_cancelled
            shard.state, shard.attempt = "dispatched", message.attempt
        self.messages += ours

    @rule()
    def queue_is_wiped_and_filled_again(self) -> None:
        self.broker.published.clear()
        self.reconciler.run_once(self._now(plus_seconds=1000))
        again = {
            (message.shard_id, message.attempt) for message in self.broker.published if message.model == self.model
        }
        assert again == {
            (shard_id, shard.attempt)
            for job in self.jobs
            for shard_id, shard in job.shards.items()
            if shard.state == "dispatched"
        }

    @precondition(lambda self: self.messages)
    @rule(number=which)
    def message_arrives(self, number: int) -> None:
        """Any message, as late and as often as it likes."""
        message = _pick(self.messages, number)
        job, shard = self._find(message.shard_id)
        may = (shard.state, shard.attempt) == ("dispatched", message.attempt) and not job.is_cancelled
        with self.sessions.begin() as session:
            row = leases.take_lease(session, message.shard_id, message.attempt, worker_id=self.model, lease_seconds=60)
        assert (row is not None) == may
        if row is not None:
            done = finished_indexes(shards.parts_of(row))
            assert done == set(job.finished) & set(shard.items)
            shard.state = "leased"
            todo = [index for index in shard.items if index not in done]
            self.attempts.append(Attempt(message.shard_id, message.attempt, todo))

    @precondition(lambda self: self.attempts)
    @rule(number=which, count=st.integers(1, 4), num_failed=st.integers(0, 1))
    def part(self, number: int, count: int, num_failed: int) -> None:
        attempt = _pick(self.attempts, number)
        indexes, rest = attempt.todo[:count], attempt.todo[count:]
        if not indexes:
            return
        if self._fenced(attempt, lambda session: self._append(session, attempt, indexes, num_failed)):
            job, _ = self._find(attempt.shard_id)
            assert not set(indexes) & set(job.finished)
            job.finished |= {index: place >= num_failed for place, index in enumerate(indexes)}
            self._find(attempt.shard_id)[1].crashes = 0
        attempt.todo, attempt.num_parts = rest, attempt.num_parts + 1

    @precondition(lambda self: self.attempts)
    @rule(number=which)
    def finish(self, number: int) -> None:
        attempt = _pick(self.attempts, number)
        job, shard = self._find(attempt.shard_id)
        where = (attempt.shard_id, attempt.number)
        if self._holds(attempt) and not set(shard.items) <= set(job.finished):
            with pytest.raises(IntegrityError, match="done_is_all"), self.sessions.begin() as session:
                leases.finish_shard_if_leased(session, *where)
        elif self._fenced(attempt, lambda session: leases.finish_shard_if_leased(session, *where)):
            shard.state = "done"

    @precondition(lambda self: self.attempts)
    @rule(number=which)
    def give_back(self, number: int) -> None:
        attempt = _pick(self.attempts, number)
        where = (attempt.shard_id, attempt.number)
        if self._fenced(attempt, lambda s: leases.release_shard_if_leased(s, *where, reason="r", delay_seconds=0)):
            self._find(attempt.shard_id)[1].state = "waiting"

    @precondition(lambda self: self.attempts)
    @rule(number=which)
    def heartbeat(self, number: int) -> None:
        """Renewal keeps what is held; a worker whose job was cancelled drops it, as workers do."""
        attempt = _pick(self.attempts, number)
        pair = (attempt.shard_id, attempt.number)
        with self.sessions.begin() as session:
            renewed = leases.renew_leases(session, [pair], lease_seconds=60)
            stops = leases.find_stops(session, [pair])
        job, shard = self._find(attempt.shard_id)
        assert (renewed == {pair}) == self._holds(attempt)
        if not self._holds(attempt):
            assert stops == {pair: "lost"}
        elif job.is_cancelled:
            assert stops == {pair: "cancel"}
            assert self._fenced(attempt, lambda session: leases.cancel_shard_if_leased(session, *pair))
            shard.state = "cancelled"
        else:
            assert stops == ({pair: "pause"} if job.is_paused else {})

    @precondition(lambda self: any(map(self._holds, self.attempts)))
    @rule(number=which)
    def lease_runs_out(self, number: int) -> None:
        attempt = _pick([attempt for attempt in self.attempts if self._holds(attempt)], number)
        with self.sessions.begin() as session:
            past = func.clock_timestamp() - timedelta(seconds=1)
            session.execute(update(ShardRow).where(ShardRow.id == attempt.shard_id).values(lease_expires_at=past))
        job, shard = self._find(attempt.shard_id)
        unfinished = [index for index in shard.items if index not in job.finished]
        self._reap()
        crashes = shard.crashes + 1
        if job.is_cancelled:
            shard.state = "cancelled"
        elif crashes < MAX_CRASHES or not unfinished:
            shard.state, shard.crashes = "waiting", crashes
        elif len(unfinished) == 1:
            shard.state = "done"
            job.finished[unfinished[0]] = False
        else:
            self._halved(job, attempt.shard_id, unfinished[len(unfinished) // 2])

    @rule(number=which)
    def pause(self, number: int) -> None:
        job = _pick(self.jobs, number)
        if self._ask(job, jobs.pause):
            job.is_paused = True
            for shard in job.shards.values():
                shard.state = "waiting" if shard.state == "dispatched" else shard.state

    @rule(number=which)
    def resume(self, number: int) -> None:
        job = _pick(self.jobs, number)
        if self._ask(job, jobs.resume):
            job.is_paused = False

    @precondition(lambda self: len(self.attempts) > 2)
    @rule(number=which)
    def cancel(self, number: int) -> None:
        job = _pick(self.jobs, number)
        if self._ask(job, jobs.request_cancel):
            job.is_cancelled = True

    @precondition(lambda self: len(self.attempts) > 2)
    @rule(number=which)
    def deadline_passes(self, number: int) -> None:
        """Cancels what was not cancelled before, paused or not. It passes once, as nobody can move it."""
        job = _pick(self.jobs, number)
        if job.is_late:
            return
        with self.sessions.begin() as session:
            session.get_one(JobRow, job.id).deadline_at = database_now(session)
        if not job.has_ended and not job.is_cancelled:
            job.is_cancelled = job.is_late = True
        self._reap()

    @rule()
    def reaper_looks(self) -> None:
        self._reap()

    @rule()
    def finisher_looks(self) -> None:
        for _ in self.jobs:
            self.finisher.run_once(self._now())
        for job in self.jobs:
            if all(shard.state in ("done", "cancelled") for shard in job.shards.values()):
                job.has_ended, job.is_paused = True, False

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(number=which)
    def retry(self, number: int) -> None:
        job = _pick(self.jobs, number)
        failed = [index for index, is_result in job.finished.items() if not is_result]
        try:
            with self.sessions.begin() as session:
                retry_id = jobs.create_retry(session, jobs.get_job(session, job.id)).id
        except Conflict:
            assert not (job.has_ended and failed)
            return
        assert job.has_ended
        self._read(retry_id, len(failed))

    # --- What always holds ----------------------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        with self.sessions() as session:
            for job in self.jobs:
                self._check_job(session.get_one(JobRow, job.id), job)
                rows = shards.list_shards(session, job.id)
                self._check_shards(rows, job)
                failed = session.scalars(select(FailureRow.index).where(FailureRow.job_id == job.id)).all()
                assert sorted(failed) == sorted(i for i, is_result in job.finished.items() if not is_result)

    def _check_job(self, row: JobRow, job: ModelJob) -> None:
        assert JobState(row.state).ended == job.has_ended, row.state
        if job.has_ended:
            num_results = sum(job.finished.values())
            counted = (row.num_results, row.num_failures, row.num_cancelled)
            left = job.num_items - len(job.finished)
            assert counted == (num_results, len(job.finished) - num_results, left)
            assert left == 0 or job.is_cancelled
            assert row.state == ("completed" if not left else "expired" if job.is_late else "cancelled")

    def _check_shards(self, rows: Any, job: ModelJob) -> None:
        assert {row.id: (row.state, row.attempt, row.crashes, row.first_index, row.num_items) for row in rows} == {
            shard_id: (shard.state, shard.attempt, shard.crashes, shard.items.start, len(shard.items))
            for shard_id, shard in job.shards.items()
        }
        named = [
            (index, is_result)
            for row in rows
            for part in shards.parts_of(row)
            for is_result, runs in ((True, part.results), (False, part.failures))
            for first, end in runs
            for index in range(first, end)
        ]
        assert sorted(named) == sorted(job.finished.items())  # each once: a part named twice would stand here twice
        assert sum(row.num_results + row.num_failures for row in rows) == len(job.finished)

    def teardown(self) -> None:
        """Whatever happened, workers that do their work bring every job to its end."""
        for job in self.jobs:
            if job.is_paused:
                self.resume(self.jobs.index(job))
        for _ in range(60):
            if all(job.has_ended for job in self.jobs):
                break
            self._work_once()
        self.rows_are_as_the_model_says()
        assert all(job.has_ended for job in self.jobs), self.jobs

    def _work_once(self) -> None:
        self.dispatch()
        for number in range(len(self.messages)):
            self.message_arrives(number)
        for number, attempt in enumerate(self.attempts):
            if self._holds(attempt):
                self.heartbeat(number)
            if self._holds(attempt):
                job, shard = self._find(attempt.shard_id)
                attempt.todo = [index for index in shard.items if index not in job.finished]
                self.part(number, len(shard.items), 0)
                self.finish(number)
        self.reaper_looks()
        self.finisher_looks()

    # --- Small things ---------------------------------------------------------------------------------------------

    def _now(self, plus_seconds: float = 0) -> Any:
        with self.sessions() as session:
            return database_now(session) + timedelta(seconds=plus_seconds)

    def _create(self, session: Any, team_id: str, priority: int) -> str:
        lines = {"lines": [json.dumps({"prompt": f"p{index}"}) for index in range(NUM_ITEMS)]}
        job, _ = jobs.create_job(
            session, team_id, name="t", kind=JobKind.generate, model=self.model, options=GenerateOptions(),
            input=lines, shard_items=SHARD_ITEMS, priority=priority,
        )  # fmt: skip
        return job.id

    def _read(self, job_id: str, num_items: int = NUM_ITEMS) -> None:
        while self.reader.run_once(self._now()):
            pass
        with self.sessions() as session:
            rows = shards.list_shards(session, job_id)
        assert sum(row.num_items for row in rows) == num_items
        made = {row.id: ModelShard(range(row.first_index, row.first_index + row.num_items)) for row in rows}
        self.jobs.append(ModelJob(job_id, num_items, made))

    def _find(self, shard_id: int) -> tuple[ModelJob, ModelShard]:
        job = next(job for job in self.jobs if shard_id in job.shards)
        return job, job.shards[shard_id]

    def _holds(self, attempt: Attempt) -> bool:
        _, shard = self._find(attempt.shard_id)
        return (shard.state, shard.attempt) == ("leased", attempt.number)

    def _fenced(self, attempt: Attempt, write: Callable[[Any], None]) -> bool:
        """Try a write of an attempt: it must pass where it holds the lease, and change nothing where it does not."""
        if self._holds(attempt):
            with self.sessions.begin() as session:
                write(session)
            return True
        with pytest.raises(LeaseLost), self.sessions.begin() as session:
            write(session)
        return False

    def _append(self, session: Any, attempt: Attempt, indexes: list[int], num_failed: int) -> None:
        failed, good = indexes[:num_failed], indexes[num_failed:]
        lines = [
            {"index": i, "id": str(i), **({"failure": {"code": "engine_error"}} if i in failed else {})}
            for i in indexes
        ]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        key = f"jobs/x/shards/{attempt.shard_id}/{attempt.number}-{attempt.num_parts}.jsonl"
        self.store.put(key, data)
        part = Part(key, hashlib.sha256(data).hexdigest(), len(data), runs_of(good), runs_of(failed))
        rows = [ItemFailure(index, str(index), "engine_error", "m", 1) for index in failed]
        leases.append_part(session, attempt.shard_id, attempt.number, part, rows)

    def _reap(self) -> None:
        """Also cancels what waits of cancelled jobs."""
        self.reaper.run_once(self._now())
        for job in self.jobs:
            for shard in job.shards.values():
                if job.is_cancelled and shard.state in ("waiting", "dispatched"):
                    shard.state = "cancelled"

    def _halved(self, job: ModelJob, shard_id: int, boundary: int) -> None:
        shard = job.shards[shard_id]
        with self.sessions() as session:
            (new_id,) = {row.id for row in shards.list_shards(session, job.id)} - job.shards.keys()
        job.shards[new_id] = ModelShard(range(boundary, shard.items.stop), crashes=MAX_CRASHES - 1)
        shard.items, shard.state, shard.crashes = range(shard.items.start, boundary), "waiting", MAX_CRASHES - 1

    def _ask(self, job: ModelJob, verb: Callable[[Any, JobRow], None]) -> bool:
        """Whether the job took it; Conflict is for those that have ended, or are about to."""
        try:
            with self.sessions.begin() as session:
                verb(session, jobs.get_job(session, job.id))
        except Conflict:
            assert job.has_ended
            return False
        return not job.has_ended


def _pick(things: list[Any], number: int) -> Any:
    return things[number % len(things)]


def test_any_interleaving_keeps_every_item_once(sessions: SessionFactory, store: S3Store) -> None:
    run_state_machine_as_test(
        lambda: JobsAndShards(sessions, store),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
