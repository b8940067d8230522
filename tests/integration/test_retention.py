"""What is deleted goes whole, and nothing that a row names or may yet name goes with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from orchestrator import admin
from orchestrator.admin import main
from orchestrator.artifacts import S3Store
from orchestrator.artifacts.base import StoredObject, StoreRefused, StoreUnavailable
from orchestrator.db import (
    audit,
    deletion,
    jobs,
    leases,
    naming,
    queueing,
    samples,
    shards,
    teams,
    uploads,
    workers,
)
from orchestrator.db.ownership import confine
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.db.shards import ItemFailure
from orchestrator.db.tables import EventRow, FailureRow, JobRow, ShardRow, UploadRow
from orchestrator.dispatch import cleaner, collector
from orchestrator.dispatch.cleaner import Cleaner
from orchestrator.dispatch.collector import Collector, EveryHours
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.finisher import Finisher
from orchestrator.dispatch.reader import Reader
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.jobs import CaptionOptions, JobKind, JobState
from orchestrator.domain.shards import Part, part_key, runs_of
from tests.fakes import ListBroker
from tests.system import settings_of

pytestmark = pytest.mark.services
LATER = timedelta(days=30)


class World:
    """A team, an upload of eight images, and the duties that jobs of it need."""

    def __init__(self, sessions: SessionFactory, store: S3Store) -> None:
        self.sessions, self.store, self.broker = sessions, store, ListBroker()
        with sessions.begin() as session:
            self.team = teams.create_team(session, "a").id
            workers.register_worker(session, "w", host="h", pid=1, models=["m"])
        self.upload = self.make_upload()

    def make_upload(self, images: int = 8) -> str:
        with self.sessions.begin() as session:
            upload, _ = uploads.create_upload(session, self.team)
        for number in range(images):
            self.store.put(f"uploads/{self.team}/{upload.id}/{number}.png", b"image")
        return upload.id

    def make_job(self, upload: str | None = None, key: str | None = None, sample: int | None = None) -> str:
        with self.sessions.begin() as session:
            given = upload or self.upload
            uploads.get_upload(session, self.team, given, hold=True)
            job, _ = jobs.create_job(
                session, self.team, name="t", kind=JobKind.caption, model="m", options=CaptionOptions(),
                input={"upload": given}, shard_items=4, idempotency_key=key, request_sha256="r", sample=sample,
            )  # fmt: skip
            return job.id

    def retry(self, job_id: str) -> str:
        with self.sessions.begin() as session:
            confine(session, self.team)
            return jobs.create_retry(session, jobs.get_job(session, job_id))[0].id

    def read(self) -> None:
        assert Reader(self.sessions, self.store, max_item_line_bytes=2**16).run_once(self.now()) == 1

    def lease(self) -> list[queueing.Message]:
        self.broker.published.clear()
        Dispatcher(self.sessions, self.broker, queue_depth=9).run_once(self.now())
        with self.sessions.begin() as session:
            for message in self.broker.published:
                leases.take_lease(session, message.shard_id, message.attempt, worker_id="w", lease_seconds=60)
        return list(self.broker.published)

    def put_part(self, job_id: str, message: queueing.Message, indexes: Iterable[int], number: int = 0) -> Part:
        """The last of the items fails. The row does not name it yet."""
        *good, bad = indexes
        lines = [{"index": i, "id": str(i)} for i in good]
        lines.append({"index": bad, "id": str(bad), "failure": {"code": "c"}})  # type: ignore[dict-item]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        key = part_key(job_id, message.shard_id, message.attempt, number)
        self.store.put(key, data)
        return Part(key, hashlib.sha256(data).hexdigest(), len(data), runs_of(good), runs_of([bad]))

    def name_part(self, message: queueing.Message, part: Part) -> None:
        bad = part.failures[0][0]
        with self.sessions.begin() as session:
            failure = ItemFailure(bad, str(bad), "c", "m", 1)
            leases.append_part(session, message.shard_id, message.attempt, part, [failure])

    def finish(self, job_id: str, messages: list[queueing.Message]) -> None:
        for message in messages:
            with self.sessions.begin() as session:
                leases.finish_shard_if_leased(session, message.shard_id, message.attempt)
        assert Finisher(self.sessions, self.store).run_once(self.now()) == 1
        assert self.state(job_id) == JobState.completed

    def complete(self, job_id: str) -> None:
        """From accepted to completed, with a failure in each shard."""
        self.read()
        messages = self.lease()
        for message in messages:
            with self.sessions() as session:
                shard = shards.get_shard(session, message.shard_id)
            indexes = range(shard.first_index, shard.first_index + shard.num_items)
            self.name_part(message, self.put_part(job_id, message, indexes))
        self.finish(job_id, messages)

    def delete(self, job_id: str) -> None:
        with self.sessions.begin() as session:
            confine(session, self.team)
            deletion.request_delete(session, jobs.get_job(session, job_id))

    def clean(self, keep_days: int = 0) -> None:
        duty = Cleaner(self.sessions, self.store, keep_days=keep_days, reuse_days=30)
        while duty.run_once(self.now()):
            pass

    def collect(self, after: timedelta = LATER, dry_run: bool = False) -> list[str]:
        """Once through the store as if so much later; the orphans' keys."""
        duty = Collector(self.sessions, self.store, presigned_url_seconds=3600, dry_run=dry_run)
        return [key for found in duty.pages(self.now() + after) for key in found.keys]

    def now(self) -> datetime:
        with self.sessions() as session:
            return database_now(session)

    def state(self, job_id: str) -> str:
        with self.sessions() as session:
            return jobs.get_job(session, job_id).state

    def objects(self, prefix: str = "") -> set[str]:
        return {stored.key for stored in self.store.list(prefix)}

    def count(self, *tables: type) -> int:
        with self.sessions() as session:
            return sum(session.scalars(select(func.count()).select_from(table)).one() for table in tables)


@pytest.fixture
def world(sessions: SessionFactory, store: S3Store) -> World:
    return World(sessions, store)


def test_a_deleted_job_leaves_nothing(world: World) -> None:
    job_id = world.make_job(key="k")
    with pytest.raises(Conflict, match="only a job that has ended"):
        world.delete(job_id)
    world.complete(job_id)
    world.store.put(f"jobs/{job_id}/images/000-0.png", b"image")
    world.delete(job_id)
    with world.sessions.begin() as session:
        confine(session, world.team)
        with pytest.raises(NotFound):
            jobs.get_job(session, job_id)
        assert jobs.list_jobs(session, world.team, state=None, before=None, limit=9) == []
        assert shards.list_shards(session, job_id) == []
    with pytest.raises(NotFound):
        world.delete(job_id)
    assert world.objects(f"jobs/{job_id}/"), "its objects go after it is out of sight"
    again = world.make_job(key="k")
    assert again != job_id, "its key is free"
    world.clean()
    assert not world.objects(f"jobs/{job_id}/")
    assert len(world.objects("uploads/")) == 8, "the new job uses them"
    assert world.count(ShardRow, FailureRow) == 0
    world.complete(again)
    world.delete(again)
    world.clean()
    assert world.objects() == set()
    assert world.count(JobRow, ShardRow, FailureRow, EventRow, UploadRow) == 0
    with pytest.raises(NotFound):
        world.make_job()


def test_a_sample_that_waits_is_kept_with_its_upload_until_it_is_decided(world: World) -> None:
    upload = world.make_upload()
    waiting, rejected, approved = (world.make_job(upload, sample=2) for _ in range(3))
    for job_id in (waiting, rejected, approved):
        world.complete(job_id)
    with world.sessions.begin() as session:
        confine(session, world.team)
        samples.reject(session, jobs.get_job(session, rejected))
        sample, asked = jobs.get_job(session, approved), {"shard_items": 4, "request_sha256": "r"}
        whole = samples.approve(
            session, sample, CaptionOptions(), sample=None, run_window=None, deadline_at=None, **asked
        ).id
        late = {"finished_at": world.now() - timedelta(days=400), "created_at": world.now() - timedelta(days=400)}
        session.execute(update(JobRow).where(JobRow.sample.is_not(None)).values(late))
    world.clean(keep_days=7)
    world.collect()
    with world.sessions() as session:
        assert set(session.scalars(select(JobRow.id))) == {waiting, whole}
    assert len(world.objects(f"uploads/{world.team}/{upload}/")) == 8
    world.complete(whole)
    world.delete(whole)
    with world.sessions.begin() as session:
        confine(session, world.team)
        samples.reject(session, jobs.get_job(session, waiting))
    world.clean(keep_days=7)
    assert not world.objects(f"uploads/{world.team}/{upload}/")


def test_what_ended_long_ago_goes_by_itself(world: World) -> None:
    old, young, running = world.make_job(), world.make_job(), world.make_job()
    world.complete(old)
    world.complete(young)
    world.read()
    with world.sessions.begin() as session:
        ages = {old: 8, young: 6, running: 100}
        for job_id, days in ages.items():
            at = world.now() - timedelta(days=days)
            changed = {"created_at": at} if job_id == running else {"finished_at": at}
            session.execute(update(JobRow).where(JobRow.id == job_id).values(changed))
    world.clean(keep_days=0)
    assert world.count(JobRow) == 3
    world.clean(keep_days=7)
    with world.sessions() as session:
        (audited,) = audit.list_audit(session, team_id=world.team, before_id=None, limit=9)
        assert (audited.action, audited.object_id) == ("job.outdated", old)
        assert set(session.scalars(select(JobRow.id))) == {young, running}
    assert not world.objects(f"jobs/{old}/")
    assert world.objects(f"jobs/{young}/")
    assert len(world.objects("uploads/")) == 8


def test_a_death_in_the_middle_is_finished_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store goes away after a few objects, again and again; rounds are small."""
    monkeypatch.setattr(cleaner, "BATCH", 3)
    monkeypatch.setattr(cleaner, "MAX_OBJECTS", 6)
    job_id = world.make_job()
    world.complete(job_id)
    world.delete(job_id)
    real, calls = world.store.delete, []

    def failing(keys: Iterable[str]) -> None:
        calls.append(list(keys))
        if len(calls) % 2:
            raise StoreUnavailable("it is away")
        real(calls[-1])

    monkeypatch.setattr(world.store, "delete", failing)
    seen = []
    for _ in range(40):  # each round a new process, which knows nothing of the last one
        Cleaner(world.sessions, world.store, keep_days=0, reuse_days=30).run_once(world.now())
        seen.append((len(world.objects()), world.count(JobRow)))
    assert seen[-1] == (0, 0)
    assert all(rows == 1 for objects, rows in seen if objects), "the row is the last to go"
    assert len({objects for objects, _ in seen}) > 3


def test_a_retry_keeps_what_it_is_yet_to_read(world: World) -> None:
    job_id = world.make_job()
    world.complete(job_id)
    retry = world.retry(job_id)
    world.delete(job_id)
    before = world.objects()
    world.clean()
    world.collect()
    assert world.objects() == before, "the retry reads the job's items"
    world.read()
    world.clean()
    assert not world.objects(f"jobs/{job_id}/")
    assert len(world.objects("uploads/")) == 8, "the retry's images"
    with world.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == retry).values(started_at=world.now()))
    messages = world.lease()
    world.name_part(messages[0], world.put_part(retry, messages[0], range(2)))
    world.finish(retry, messages)
    second = world.retry(retry)
    with world.sessions() as session:
        assert jobs.get_job(session, second).upload_id == world.upload, "along the whole chain"


def test_a_running_job_loses_nothing_to_the_collector(world: World) -> None:
    """At every step of a job, a month after each object was written."""
    job_id = world.make_job()
    before = world.objects()
    world.store.put(f"jobs/{job_id}/items/000000000000.jsonl", b"of a reader that died")
    world.collect()
    assert world.objects() >= before
    world.read()
    assert len(world.objects(f"jobs/{job_id}/items/")) == 1
    messages = world.lease()
    parts = [world.put_part(job_id, message, range(4 * n, 4 * n + 4)) for n, message in enumerate(messages)]
    lost = world.put_part(job_id, messages[0], range(4), number=7)
    assert world.collect() == [], "what is put and not named yet may be named"
    for message, part in zip(messages, parts, strict=True):
        world.name_part(message, part)
        assert world.collect() == []
    world.finish(job_id, messages)
    kept = world.objects() - {lost.key}
    assert world.collect(after=timedelta(hours=1)) == [], "too young"
    assert world.collect(dry_run=True) == [lost.key]
    assert lost.key in world.objects()
    assert world.collect() == [lost.key]
    assert world.objects() == kept
    assert world.collect() == []
    again = world.retry(job_id)
    world.complete(again)
    assert world.state(again) == JobState.completed, "all that a retry reads is there"


def test_halves_keep_the_parts_that_the_whole_wrote(world: World) -> None:
    job_id = world.make_job()
    world.read()
    messages = world.lease()
    parts = [world.put_part(job_id, message, range(4 * n, 4 * n + 4)) for n, message in enumerate(messages)]
    for message, part in zip(messages, parts, strict=True):
        world.name_part(message, part)
    world.finish(job_id, messages)
    with world.sessions.begin() as session:  # as `halve_expired` leaves them: the part is the second half's alone
        whole = shards.get_shard(session, messages[0].shard_id)
        half = ShardRow(job_id=job_id, items_key=whole.items_key, items_offset=whole.items_offset,
                        items_bytes=whole.items_bytes, first_index=2, num_items=2, state="done",
                        parts=whole.parts, num_results=1, num_failures=1)  # fmt: skip
        whole.parts, whole.num_items, whole.num_results, whole.num_failures = [], 2, 2, 0
        session.add(half)
    assert world.collect() == []


def test_orphans_of_jobs_and_uploads_that_are_gone(world: World) -> None:
    job_id = world.make_job()
    world.complete(job_id)
    unused = world.make_upload(3)
    orphans = {"jobs/job_gone/shards/1/1-0.jsonl", f"uploads/{world.team}/upl_gone/a.png"}
    strangers = {"elsewhere/x", "uploads/x", f"jobs/{job_id}/images/000-0.png"}
    for key in orphans | strangers:
        world.store.put(key, b"bytes")
    kept = world.objects() - orphans
    assert set(world.collect(after=timedelta(days=3))) == orphans
    assert world.objects() == kept, "an upload that nobody used has a week"
    assert len(world.collect(dry_run=True)) == 3
    assert world.count(UploadRow) == 2
    assert set(world.collect()) == {f"uploads/{world.team}/{unused}/{n}.png" for n in range(3)}
    assert world.count(UploadRow) == 1
    with pytest.raises(NotFound):
        world.make_job(unused)


def test_one_collector_at_a_time_in_its_time(world: World) -> None:
    duty = Collector(world.sessions, world.store, presigned_url_seconds=3600)
    world.store.put("jobs/job_gone/a", b"bytes")
    first = duty.pages(world.now() + LATER)
    found = [next(first)]
    assert list(duty.pages(world.now() + LATER)) == [], "another one is at it"
    found += first
    assert "jobs/job_gone/a" in {key for page in found for key in page.keys}
    timed = EveryHours(duty, hours=2)
    now = world.now() + LATER
    timed.run_once(now)
    world.store.put("jobs/job_gone/b", b"bytes")
    timed.run_once(now + timedelta(hours=1))
    assert "jobs/job_gone/b" in world.objects()
    timed.run_once(now + timedelta(hours=2))
    assert "jobs/job_gone/b" not in world.objects()


def test_an_operator_collects_by_hand(
    world: World, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(admin, "get_settings", lambda: settings_of(environment))
    said: list[str] = []
    monkeypatch.setattr(admin, "configure_logging", lambda *_, **__: None)  # it would be this process's for good
    monkeypatch.setattr(collector, "get_logger", lambda: SimpleNamespace(info=lambda event, **_: said.append(event)))
    world.store.put("jobs/job_gone/a", b"bytes")
    assert main(["collect", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out) == {"objects": 0, "bytes": 0, "deleted": False}, "it is young"
    assert main(["collect"]) == 0
    assert world.objects() >= {"jobs/job_gone/a"}
    capsys.readouterr()
    monkeypatch.setattr(collector, "SAFE_AGE", timedelta(days=-1))
    assert main(["collect", "--dry-run"]) == 0
    name, counted = capsys.readouterr().out.splitlines()
    assert (name, json.loads(counted)) == ("jobs/job_gone/a", {"objects": 1, "bytes": 5, "deleted": False})
    assert world.objects() >= {"jobs/job_gone/a"}
    assert main(["collect"]) == 0
    assert json.loads(capsys.readouterr().out) == {"objects": 1, "bytes": 5, "deleted": True}
    assert said == ["orphans_deleted"]
    assert world.objects().isdisjoint({"jobs/job_gone/a"})


def test_an_object_that_the_store_does_not_let_go_keeps_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner in "abc":
        world.store.put(f"jobs/job_{owner}/a", b"bytes")
    real = world.store.delete

    def refusing(keys: Iterable[str]) -> None:
        if "jobs/job_b/a" in (given := list(keys)):
            raise StoreRefused("it is locked")
        real(given)

    monkeypatch.setattr(world.store, "delete", refusing)
    assert world.collect(after=timedelta(days=2)) == ["jobs/job_a/a", "jobs/job_c/a"]


def test_what_comes_into_an_upload_that_is_given_up_is_young(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object has its own age, also of an upload that nobody used for a week."""
    unused = world.make_upload(1)
    real = naming.forget_unused_upload

    def slow(session: Session, upload_id: str) -> bool:
        gone = real(session, upload_id)
        world.store.put(f"uploads/{world.team}/{upload_id}/late.png", b"image")
        return gone

    monkeypatch.setattr(naming, "forget_unused_upload", slow)
    listing = world.store.list

    def as_of_a_month(prefix: str) -> Iterator[StoredObject]:
        """All but the late one look as old as they are to be."""
        for stored in listing(prefix):
            yield stored if "late" in stored.key else replace(stored, modified_at=stored.modified_at - LATER)

    monkeypatch.setattr(world.store, "list", as_of_a_month)
    with world.sessions.begin() as session:
        session.execute(update(UploadRow).where(UploadRow.id == unused).values(created_at=world.now() - LATER))
    world.make_job()
    assert world.collect(after=timedelta(0)) == [f"uploads/{world.team}/{unused}/0.png"]
    assert f"uploads/{world.team}/{unused}/late.png" in world.objects()
