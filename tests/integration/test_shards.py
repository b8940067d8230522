"""Leases, fences and what becomes of shards, on a real Postgres."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.artifacts import S3Store
from orchestrator.db import expiry, jobs, leases, queueing, shards, teams, uploads, workers
from orchestrator.db.leases import LeaseLost
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import ShardRow
from orchestrator.dispatch import one_by_one
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.finisher import Finisher
from orchestrator.dispatch.reader import MAX_TRIES, Reader
from orchestrator.dispatch.reaper import Reaper
from orchestrator.dispatch.reconciler import Reconciler
from orchestrator.domain.image_refs import ImageNames
from orchestrator.domain.items import MAX_LINE_BYTES, ItemReader
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind, JobState
from orchestrator.domain.shards import Part, ShardState, finished_indexes, runs_of
from tests.fakes import ListBroker

pytestmark = pytest.mark.services


class World:
    """A job of `items` prompts in shards of four, and the duties around it."""

    def __init__(self, sessions: SessionFactory, store: S3Store) -> None:
        self.sessions, self.store, self.broker = sessions, store, ListBroker()
        self.dispatcher = Dispatcher(sessions, self.broker, queue_depth=4)
        self.reconciler = Reconciler(sessions, self.broker, republish_seconds=10)
        self.reaper = Reaper(sessions, store, max_crashes=2)
        self.finisher = Finisher(sessions, store)

    def now(self, plus_seconds: float = 0):
        with self.sessions() as session:
            return database_now(session) + timedelta(seconds=plus_seconds)

    def make_job(self, items: int = 8, team: str = "a", **values: object) -> str:
        with self.sessions.begin() as session:
            owner = teams.find_team(session, team) or teams.create_team(session, team)
            prompts = {"lines": [json.dumps({"prompt": f"p{i}"}) for i in range(items)]}
            job, _ = jobs.create_job(
                session, owner.id, name="t", kind=JobKind.generate, model="m", options=GenerateOptions(),
                **{"input": prompts, "shard_items": 4} | values,
            )  # fmt: skip
        Reader(self.sessions, self.store, max_item_line_bytes=2**16).run_once(self.now())
        return job.id

    def dispatch(self) -> list[queueing.Message]:
        self.broker.published.clear()
        self.dispatcher.run_once(self.now())
        return list(self.broker.published)

    def lease(self, message: queueing.Message, seconds: float = 60) -> ShardRow | None:
        with self.sessions.begin() as session:
            return leases.take_lease(session, message.shard_id, message.attempt, worker_id="w", lease_seconds=seconds)

    def write(self, message: queueing.Message, results: list[int], failures: list[int] = [], part: int = 0) -> None:  # noqa: B006
        with self.sessions.begin() as session:
            key = f"jobs/x/shards/{message.shard_id}/{message.attempt}-{part}.jsonl"
            rows = [ItemFailure(i, str(i), "engine_error", "m", 1) for i in failures]
            lines = [{"index": i, "id": str(i)} for i in results]
            lines += [{"index": i, "id": str(i), "failure": {"code": "engine_error"}} for i in failures]
            data = "".join(json.dumps(line) + "\n" for line in lines).encode()
            self.store.put(key, data)
            made = Part(key, hashlib.sha256(data).hexdigest(), len(data), runs_of(results), runs_of(failures))
            leases.append_part(session, message.shard_id, message.attempt, made, rows)

    def start_worker(self) -> None:
        with self.sessions.begin() as session:
            workers.register_worker(session, "w", host="h", pid=1, models=["m"])

    def cancel(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            jobs.request_cancel(session, jobs.get_job(session, job_id))

    def pause(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            jobs.pause(session, jobs.get_job(session, job_id))

    def release(self, message: queueing.Message) -> None:
        with self.sessions.begin() as session:
            leases.release_shard_if_leased(session, message.shard_id, message.attempt, reason="r", delay_seconds=0)

    def finish(self, message: queueing.Message) -> None:
        with self.sessions.begin() as session:
            leases.finish_shard_if_leased(session, message.shard_id, message.attempt)

    def shard(self, shard_id: int) -> ShardRow:
        with self.sessions() as session:
            return shards.get_shard(session, shard_id)

    def shard_of(self, job_id: str) -> ShardRow:
        with self.sessions() as session:
            return shards.list_shards(session, job_id)[0]

    def state(self, job_id: str) -> str:
        with self.sessions() as session:
            return jobs.get_job(session, job_id).state


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    return World(sessions, store)


def test_message_names_an_attempt_that_one_worker_can_lease_once(world: World) -> None:
    world.make_job()
    first, second = world.dispatch()
    assert (first.attempt, second.attempt) == (1, 1)
    assert world.lease(first) is not None
    assert world.lease(first) is None  # a repeated message


def test_old_attempt_cannot_write_after_the_shard_was_leased_again(world: World) -> None:
    world.make_job(items=4)
    (old,) = world.dispatch()
    world.lease(old, seconds=5)
    world.write(old, [0, 1])
    world.reaper.run_once(world.now(plus_seconds=6))
    (new,) = world.dispatch()
    assert (new.shard_id, new.attempt) == (old.shard_id, 2)
    shard = world.lease(new)
    assert shard is not None
    assert finished_indexes(shards.parts_of(shard)) == {0, 1}  # the next attempt skips what is stored
    for write in (lambda: world.write(old, [2], part=1), lambda: world.finish(old)):
        with pytest.raises(LeaseLost):
            write()
    with world.sessions.begin() as session:
        assert leases.renew_leases(session, [(old.shard_id, 1), (new.shard_id, 2)], lease_seconds=9) == {
            (new.shard_id, 2)
        }
    world.write(new, [2], [3])
    world.finish(new)
    assert world.shard(new.shard_id).state == ShardState.done


def test_part_that_is_appended_twice_counts_once(world: World) -> None:
    world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1], [2])
    world.write(message, [0, 1], [2])  # the answer to the first commit was lost
    assert (world.shard(message.shard_id).num_results, world.shard(message.shard_id).num_failures) == (2, 1)


def test_shard_is_not_done_while_an_item_has_neither_result_nor_failure(world: World) -> None:
    world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1, 2])
    with pytest.raises(IntegrityError, match="done_is_all"):
        world.finish(message)


def test_flushed_queue_is_filled_again(world: World) -> None:
    world.make_job()
    messages = world.dispatch()
    world.broker.published.clear()  # FLUSHALL
    assert world.reconciler.run_once(world.now(plus_seconds=11)) == 0  # nobody listens
    world.start_worker()
    assert world.reconciler.run_once(world.now(plus_seconds=5)) == 0  # it may only be slow
    assert world.reconciler.run_once(world.now(plus_seconds=11)) == 2
    assert world.broker.published == messages  # the same attempts: nothing was lost but time


def test_full_queue_is_not_filled_again(world: World) -> None:
    world.make_job()
    world.start_worker()
    world.dispatch()
    assert world.reconciler.run_once(world.now(plus_seconds=11)) == 0


def test_failed_publish_leaves_nothing_behind_but_a_later_one(world: World) -> None:
    world.make_job(items=4)
    world.broker.broken = True
    with pytest.raises(ConnectionError):
        world.dispatch()
    world.broker.broken = False
    world.start_worker()
    world.reconciler.run_once(world.now(plus_seconds=11))
    (message,) = world.broker.published
    assert world.lease(message) is not None


def test_teams_take_turns_and_what_is_in_flight_counts(world: World) -> None:
    big, small = world.make_job(items=40, team="big"), world.make_job(items=4, team="small")
    first_round = [world.shard(message.shard_id).job_id for message in world.dispatch()]
    assert first_round.count(small) == 1  # of four places the small team gets its one
    assert first_round.count(big) == 3


def test_priority_and_pause(world: World) -> None:
    low, high = world.make_job(items=16), world.make_job(items=16, priority=5)
    assert {world.shard(message.shard_id).job_id for message in world.dispatch()} == {high}
    world.pause(high)
    assert [world.lease(message) for message in world.broker.published] == [None] * 4  # taken out of the queue again
    assert {world.shard(message.shard_id).job_id for message in world.dispatch()} == {low}


def test_crashing_shard_is_halved_until_the_bad_item_is_alone(world: World) -> None:
    """Every attempt that holds item 2 dies at once; all others finish."""
    job_id = world.make_job(items=8)
    for _ in range(40):
        for message in world.dispatch():
            shard = world.lease(message, seconds=1)
            assert shard is not None
            indexes = set(range(shard.first_index, shard.first_index + shard.num_items))
            left = sorted(indexes - finished_indexes(shards.parts_of(shard)))
            if 2 in left:
                continue  # this worker is dead
            world.write(message, left)
            world.finish(message)
        world.reaper.run_once(world.now(plus_seconds=2))
        with world.sessions() as session:
            if job_id in jobs.list_to_finish(session):
                break
    with world.sessions() as session:
        (failure,) = jobs.list_failures(session, job_id, after_index=-1, limit=10)
        counts = jobs.counts_of(session, [jobs.get_job(session, job_id)])[job_id]
    assert (failure.index, failure.code) == (2, "worker_crashed")
    assert (counts.results, counts.failures) == (7, 1)


def test_progress_forgives_earlier_crashes(world: World) -> None:
    world.make_job(items=4)
    for index in range(4):
        (message,) = world.dispatch()
        assert world.lease(message, seconds=1) is not None
        world.write(message, [index])
        if index < 3:
            world.reaper.run_once(world.now(plus_seconds=2))
            assert world.shard(message.shard_id).crashes == 1
    world.finish(message)


def test_cancelled_job_keeps_what_is_finished(world: World) -> None:
    job_id = world.make_job(items=12)
    first, second, third = world.dispatch()
    world.lease(first)
    world.lease(second, seconds=1)
    world.write(first, [0], [1])
    world.cancel(job_id)
    assert world.lease(third) is None
    with world.sessions() as session:
        assert leases.find_stops(session, [(first.shard_id, 1)]) == {(first.shard_id, 1): "cancel"}
    with world.sessions.begin() as session:
        leases.cancel_shard_if_leased(session, first.shard_id, first.attempt)
    assert world.reaper.run_once(world.now()) == 1  # the third, which waited
    assert world.finisher.run_once(world.now()) == 0  # a silent worker still holds the second
    world.reaper.run_once(world.now(plus_seconds=2))
    assert world.finisher.run_once(world.now()) == 1
    assert world.state(job_id) == JobState.cancelled
    with world.sessions() as session:
        job = jobs.get_job(session, job_id)
    assert (job.num_items, job.num_results, job.num_failures, job.num_cancelled) == (12, 1, 1, 10)


@pytest.mark.parametrize("way", ["release before", "release after", "expire", "pause"])
def test_cancel_ends_the_job_however_its_shards_came_to_wait(world: World, way: str) -> None:
    job_id = world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message, seconds=1)
    if way == "release before":
        world.release(message)
    if way == "pause":
        world.pause(job_id)
    world.cancel(job_id)
    if way in ("release after", "pause"):
        world.release(message)
    world.reaper.run_once(world.now(plus_seconds=2))
    world.reaper.run_once(world.now(plus_seconds=2))
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.cancelled


def test_one_bad_input_does_not_stop_the_reader(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("cannot read this")

    with world.sessions.begin() as session:
        team = teams.create_team(session, "r")
        first, second = (
            jobs.create_job(
                session, team.id, name="t", kind=JobKind.generate, model="m", options=GenerateOptions(),
                input={"lines": [f'{{"prompt": "{name}"}}']}, shard_items=4,
            )[0].id
            for name in ("bad", "good")
        )  # fmt: skip
    reader = Reader(world.sessions, world.store, max_item_line_bytes=2**16)
    raw_items = reader._raw_items
    monkeypatch.setattr(reader, "_raw_items", lambda job: broken() if job.id == first else raw_items(job))
    monkeypatch.setattr(one_by_one, "FIRST_DELAY_SECONDS", 0.0)
    for _ in range(MAX_TRIES + 1):
        reader.run_once(world.now())
    assert world.state(second) == JobState.running
    assert world.state(first) == JobState.failed


def test_image_name_that_is_no_text_costs_its_item_only(world: World) -> None:
    names = ['{"image": "\\ud800.jpg"}', '{"image": "ok.jpg"}', '{"image": "x", "' + "n" * 90_000 + '": 1}']
    items = list(ItemReader(CaptionOptions(), ImageNames("uploads/t/u/")).read(names))
    assert [item.failure is None for item in items] == [False, True, False]
    assert all(len(item.as_line().encode()) < MAX_LINE_BYTES for item in items)


def test_shard_that_cannot_be_judged_does_not_stop_the_reaper(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.make_job(items=4)
    world.make_job(items=4, team="b")
    bad, good = world.dispatch()
    world.lease(bad, seconds=1)
    world.lease(good, seconds=1)
    find = expiry.lock_unchanged

    def fail_on_bad(session: object, seen: ShardRow) -> object:
        if seen.id == bad.shard_id:
            raise RuntimeError("cannot judge this")
        return find(session, seen)

    monkeypatch.setattr(expiry, "lock_unchanged", fail_on_bad)
    world.reaper.run_once(world.now(plus_seconds=2))
    assert world.shard(good.shard_id).state == ShardState.waiting
    assert world.shard(bad.shard_id).state == ShardState.leased


def test_item_is_given_up_even_where_its_list_is_gone(world: World) -> None:
    world.make_job(items=1)
    for _ in range(2):
        (message,) = world.dispatch()
        world.lease(message, seconds=1)
        with world.sessions.begin() as session:
            shards.get_shard(session, message.shard_id).items_key = "gone"
        world.reaper.run_once(world.now(plus_seconds=2))
    assert world.shard(message.shard_id).state == ShardState.done
    assert world.shard(message.shard_id).num_failures == 1


def test_attempt_that_writes_while_it_is_judged_keeps_its_lease(world: World) -> None:
    world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message, seconds=1)
    with world.sessions() as session:
        (seen,) = expiry.list_expired(session, world.now(plus_seconds=2))
    world.write(message, [0])
    with world.sessions.begin() as session:
        assert expiry.lock_unchanged(session, seen) is None


def test_damaged_part_keeps_its_job_open_with_a_reason_and_no_other_job(world: World) -> None:
    damaged, fine = world.make_job(items=4), world.make_job(items=4)
    for message in world.dispatch():
        world.lease(message)
        first = world.shard(message.shard_id).first_index
        world.write(message, list(range(first, first + 4)))
        world.finish(message)
    (part,) = shards.parts_of(world.shard_of(damaged))
    kept = world.store.get(part.key)
    world.store.put(part.key, b"other bytes")
    world.finisher.run_once(world.now())
    assert world.state(fine) == JobState.completed
    assert world.state(damaged) == JobState.finishing
    with world.sessions() as session:
        assert part.key in str(jobs.get_job(session, damaged).state_reason)
    world.store.put(part.key, kept)
    Finisher(world.sessions, world.store).run_once(world.now())
    assert world.state(damaged) == JobState.completed


def test_part_that_holds_less_than_its_row_counts_is_no_cancelled_item(world: World) -> None:
    job_id = world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1, 2, 3])
    world.finish(message)
    with world.sessions.begin() as session:
        shard = shards.get_shard(session, message.shard_id)
        data = b'{"index": 0, "id": "0"}\n'
        world.store.put("short", data)
        shard.parts = [{**shard.parts[0], "key": "short", "sha256": hashlib.sha256(data).hexdigest()}]
    world.finisher.run_once(world.now())
    assert world.state(job_id) == JobState.finishing
    with world.sessions() as session:
        assert "counts 4 results" in str(jobs.get_job(session, job_id).state_reason)


def test_unforeseen_crash_is_judged_at_once(world: World) -> None:
    world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message, seconds=3600)
    with world.sessions.begin() as session:
        leases.expire_shard_if_leased(session, message.shard_id, message.attempt)
    assert world.reaper.run_once(world.now()) == 1
    assert world.shard(message.shard_id).crashes == 1


def test_job_cancelled_before_its_input_was_read_ends(world: World) -> None:
    with world.sessions.begin() as session:
        team = teams.create_team(session, "early")
        job, _ = jobs.create_job(
            session, team.id, name="t", kind=JobKind.generate, model="m", options=GenerateOptions(),
            input={"lines": ['{"prompt": "p"}']}, shard_items=4,
        )  # fmt: skip
        jobs.request_cancel(session, job)
    Reader(world.sessions, world.store, max_item_line_bytes=100).run_once(world.now())
    world.finisher.run_once(world.now())
    assert world.state(job.id) == JobState.cancelled


def test_empty_or_missing_input_fails_the_job_with_a_reason(world: World) -> None:
    with world.sessions.begin() as session:
        team = teams.create_team(session, "empty")
        made = [
            jobs.create_job(
                session, team.id, name="t", kind=JobKind.caption, model="m", options=CaptionOptions(),
                input={"upload": "upl_x", **more}, shard_items=4,
            )[0].id
            for more in ({}, {"manifest": "manifest.jsonl"})
        ]  # fmt: skip
    reader = Reader(world.sessions, world.store, max_item_line_bytes=100)
    assert [reader.run_once(world.now()) for _ in range(3)] == [1, 1, 0]
    with world.sessions() as session:
        reasons = [jobs.get_job(session, job_id).state_reason for job_id in made]
    assert "no items" in str(reasons[0])
    assert "could not be read" in str(reasons[1])


def test_too_large_a_manifest_fails_its_job_before_a_line_is_read(world: World) -> None:
    with world.sessions.begin() as session:
        team = teams.create_team(session, "large")
        upload, _ = uploads.create_upload(session, team.id)
        made = [
            jobs.create_job(
                session, team.id, name="t", kind=JobKind.generate, model="m", options=GenerateOptions(),
                input={"upload": upload.id, "manifest": name}, shard_items=4,
            )[0].id
            for name in ("fits.jsonl", "large.jsonl")
        ]  # fmt: skip
    lines = b'{"prompt": "p"}\n' * 8
    for name, data in (("fits.jsonl", lines), ("large.jsonl", lines + b"\n")):
        world.store.put(uploads.upload_prefix(team.id, upload.id) + name, data)
    reader = Reader(world.sessions, world.store, max_item_line_bytes=100, max_manifest_bytes=len(lines))
    assert [reader.run_once(world.now()) for _ in range(3)] == [1, 1, 0]
    assert world.state(made[0]) == JobState.running
    with world.sessions() as session:
        job = jobs.get_job(session, made[1])
        assert job.state == JobState.failed
        assert "129 bytes; at most 128" in str(job.state_reason)
        assert "JANUS_MAX_MANIFEST_BYTES" in str(job.state_reason)
        assert shards.list_shards(session, made[1]) == []


def test_teams_take_turns_at_the_reader(world: World) -> None:
    reader = Reader(world.sessions, world.store, max_item_line_bytes=100)
    made: dict[str, list[str]] = {}
    for name in ("greedy", "greedy", "greedy", "modest"):
        with world.sessions.begin() as session:
            team = teams.find_team(session, name) or teams.create_team(session, name)
            job, _ = jobs.create_job(
                session, team.id, name="t", kind=JobKind.generate, model="m", options=GenerateOptions(),
                input={"lines": ['{"prompt": "p"}']}, shard_items=4,
            )  # fmt: skip
            made.setdefault(name, []).append(job.id)
    with world.sessions() as session:
        greedy, last = made["greedy"], made["modest"][0]
        assert jobs.list_unread(session) == [greedy[0], last, *greedy[1:]]
        assert jobs.list_unread(session, without=[greedy[0]]) == [greedy[1], last, greedy[2]]
    assert [reader.run_once(world.now()) for _ in range(2)] == [1, 1]
    assert world.state(made["modest"][0]) == JobState.running
    assert [world.state(job_id) for job_id in made["greedy"]] == [
        JobState.running,
        JobState.accepted,
        JobState.accepted,
    ]


def test_giving_way_is_no_fault(world: World) -> None:
    world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.release(message)
    assert world.shard(message.shard_id).releases == 0


def test_late_trouble_is_not_noted_on_a_job_that_has_ended(world: World) -> None:
    job_id = world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1, 2, 3])
    world.finish(message)
    world.finisher.run_once(world.now())
    with world.sessions.begin() as session:
        jobs.note_trouble(session, job_id, "another finisher was slower")
    with world.sessions() as session:
        job = jobs.get_job(session, job_id)
    assert (job.state, job.state_reason) == (JobState.completed, None)


def test_retry_with_the_same_key_is_the_same_job(world: World) -> None:
    job_id = world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1, 2], [3])
    world.finish(message)
    world.finisher.run_once(world.now())
    with world.sessions.begin() as session:
        job = jobs.get_job(session, job_id)
        made = [jobs.create_retry(session, job, idempotency_key="k")[0].id for _ in range(2)]
        found = jobs.find_by_idempotency_key(session, job.team_id, "k", jobs.retry_sha256(job))
        assert found is not None
    assert {found.id} == set(made)


def test_reader_and_finisher_that_come_late_do_no_work_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = world.make_job(items=4)
    (message,) = world.dispatch()
    world.lease(message)
    world.write(message, [0, 1, 2, 3])
    world.finish(message)
    world.finisher.run_once(world.now())
    monkeypatch.setattr(jobs, "list_unread", lambda session, without: [job_id])
    monkeypatch.setattr(jobs, "list_to_finish", lambda session, without: [job_id])
    monkeypatch.setattr(world.store, "put", lambda *_: pytest.fail("it wrote again"))
    assert Reader(world.sessions, world.store, max_item_line_bytes=100).run_once(world.now()) == 0
    assert world.finisher.run_once(world.now()) == 0
    assert world.state(job_id) == JobState.completed
