"""The duties of OpenAI batches, told to die half through, and what goes when its time is over."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from orchestrator.artifacts import S3Store
from orchestrator.artifacts.base import ObjectMissing
from orchestrator.db import jobs, naming, openai_batches, openai_files, teams, workers
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.db.tables import JobRow, OpenaiBatchRow, OpenaiFileRow
from orchestrator.dispatch.openai_cleaner import OpenaiCleaner
from orchestrator.dispatch.openai_finisher import OpenaiFinisher
from orchestrator.dispatch.openai_reader import LineLimits, OpenaiReader
from orchestrator.domain.jobs import Counts, JobKind, JobState
from orchestrator.domain.openai_batches import OpenaiState

pytestmark = pytest.mark.services
IMAGES = "/v1/images/generations"
LIMITS = LineLimits(lines=5, line_bytes=1000, image_bytes=100)


class Died(Exception):
    pass


def lines(*prompts: str) -> bytes:
    requests = [
        {"custom_id": f"{n}", "method": "POST", "url": IMAGES, "body": {"model": "m", "prompt": prompt}}
        for n, prompt in enumerate(prompts)
    ]
    return "".join(json.dumps(request) + "\n" for request in requests).encode()


def make_batch(sessions: SessionFactory, store: S3Store, data: bytes, window_seconds: int = 1000) -> str:
    with sessions.begin() as session:
        workers.register_model(session, "m", family="janus-pro", revision="r")
        team_id = teams.create_team(session, "one").id
        key = openai_files.file_prefix(team_id) + "sent"
        store.put(key, data)
        values: dict[str, Any] = {"filename": "f", "purpose": "batch", "num_bytes": len(data), "expires_seconds": None}
        file = openai_files.add_file(session, team_id, key=key, **values)
        return openai_batches.create_batch(
            session,
            team_id,
            endpoint=IMAGES,
            input_file_id=file.id,
            upload_id=None,
            completion_window="any",
            window_seconds=window_seconds,
            labels=None,
            output_seconds=None,
        ).id


def reader(sessions: SessionFactory, store: S3Store) -> OpenaiReader:
    return OpenaiReader(sessions, store, limits=LIMITS, shard_items=dict.fromkeys(JobKind, 16))


def now_of(sessions: SessionFactory) -> Any:
    with sessions() as session:
        return database_now(session)


def batch_of(sessions: SessionFactory, batch_id: str) -> OpenaiBatchRow:
    with sessions() as session:
        return openai_batches.get_batch(session, batch_id)


def end_job(sessions: SessionFactory, store: S3Store, job_id: str, results: list[dict[str, Any]], total: int) -> None:
    """As the finisher would; what has no line was cancelled."""
    store.put(f"jobs/{job_id}/results.jsonl", "".join(json.dumps(line) + "\n" for line in results).encode())
    with sessions.begin() as session:
        jobs.start(session, job_id, total)
        if len(results) < total:
            jobs.request_cancel(session, jobs.get_job(session, job_id))
        jobs.begin_finishing(session, job_id)
        job = jobs.get_job(session, job_id)
        session.refresh(job)
        jobs.finish(session, job, Counts(total, len(results), 0, total - len(results)), "0" * 64)


RESULT = {
    "index": 0,
    "id": "0",
    "prompt": "p",
    "images": [{"file": "000000000-0.png", "sha256": "a" * 64, "width": 8, "height": 8, "seed": 1}],
    "model": "m",
    "revision": "r",
}


def test_a_reader_that_dies_leaves_a_batch_that_is_read_again(
    sessions: SessionFactory, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = make_batch(sessions, store, lines("a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(openai_batches, "start", _die)
        assert reader(sessions, store).run_once(now_of(sessions)) == 0
    with sessions() as session:
        assert session.scalars(select(func.count()).select_from(JobRow)).one() == 0
    assert batch_of(sessions, batch_id).state == OpenaiState.validating
    again = reader(sessions, store)
    assert (again.run_once(now_of(sessions)), again.run_once(now_of(sessions))) == (1, 0)
    batch = batch_of(sessions, batch_id)
    assert (batch.state, batch.model) == (OpenaiState.in_progress, "m")
    with sessions() as session:
        job = session.scalars(select(JobRow)).one()
        assert (job.id, job.upload_id) == (batch.job_id, batch.upload_id)
        assert batch.upload_id is not None
    prefix = f"uploads/{batch.team_id}/{batch.upload_id}/{batch_id}/"
    manifest = [json.loads(line) for line in store.get(prefix + "manifest.jsonl").splitlines()]
    assert manifest == [{"id": "0", "seed": 0, "prompt": "a"}, {"id": "1", "seed": 1, "prompt": "b"}]


def _die(*arguments: Any, **values: Any) -> Any:
    raise Died


def test_a_finisher_that_dies_leaves_a_batch_that_is_finished_again(
    sessions: SessionFactory, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = make_batch(sessions, store, lines("a", "b", "", "c"))
    reader(sessions, store).run_once(now_of(sessions))
    job_id = batch_of(sessions, batch_id).job_id
    assert job_id
    end_job(sessions, store, job_id, [RESULT], total=3)
    store.put(f"jobs/{job_id}/images/000000000-0-{'a' * 16}.png", b"picture")
    with monkeypatch.context() as patch:
        patch.setattr(openai_batches, "finish", _die)
        assert OpenaiFinisher(sessions, store, link_seconds=60).run_once(now_of(sessions)) == 0
    assert batch_of(sessions, batch_id).state == OpenaiState.finalizing
    assert OpenaiFinisher(sessions, store, link_seconds=60).run_once(now_of(sessions)) == 1
    batch = batch_of(sessions, batch_id)
    assert batch.state == OpenaiState.cancelled, "somebody cancelled its job"
    with sessions() as session:
        made = session.scalars(select(OpenaiFileRow).where(OpenaiFileRow.purpose == "batch_output")).all()
    assert {file.id for file in made} == {batch.output_file_id, batch.error_file_id}
    texts = {file.id: store.get(file.key) for file in made}
    assert [len(texts[file.id]) for file in made] == [file.num_bytes for file in made]
    output = [json.loads(line) for line in texts[batch.output_file_id or ""].splitlines()]
    errors = [json.loads(line) for line in texts[batch.error_file_id or ""].splitlines()]
    assert [line["custom_id"] for line in output] == ["0"]
    assert [line["custom_id"] for line in errors] == ["2", "1", "3"], "refused first, then what had no turn"


def test_a_batch_whose_job_was_deleted_fails_and_says_so(sessions: SessionFactory, store: S3Store) -> None:
    batch_id = make_batch(sessions, store, lines("a"))
    reader(sessions, store).run_once(now_of(sessions))
    with sessions.begin() as session:
        session.execute(update(JobRow).values(deleted_at=func.now(), state=JobState.completed))
    OpenaiFinisher(sessions, store, link_seconds=60).run_once(now_of(sessions))
    batch = batch_of(sessions, batch_id)
    assert (batch.state, batch.errors[0]["code"]) == (OpenaiState.failed, "job_deleted")


def test_too_many_lines_and_files_that_are_gone(sessions: SessionFactory, store: S3Store) -> None:
    batch_id = make_batch(sessions, store, lines(*"abcdef"))
    reader(sessions, store).run_once(now_of(sessions))
    batch = batch_of(sessions, batch_id)
    assert (batch.state, batch.errors[0]["code"]) == (OpenaiState.failed, "too_many_lines")
    with sessions.begin() as session:
        session.execute(update(OpenaiBatchRow).values(state=OpenaiState.validating))
        session.execute(update(OpenaiFileRow).values(deleted_at=func.now()))
    reader(sessions, store).run_once(now_of(sessions))
    assert batch_of(sessions, batch_id).errors[0]["code"] == "file_deleted"


def test_a_batchs_window_is_its_jobs_deadline(sessions: SessionFactory, store: S3Store) -> None:
    batch_id = make_batch(sessions, store, lines("a"), window_seconds=60)
    reader(sessions, store).run_once(now_of(sessions))
    batch = batch_of(sessions, batch_id)
    with sessions() as session:
        assert jobs.get_job(session, batch.job_id or "").deadline_at == batch.expires_at


def test_files_go_when_they_are_deleted_or_their_time_is_over(sessions: SessionFactory, store: S3Store) -> None:
    make_batch(sessions, store, lines("a"))
    with sessions.begin() as session:
        file = session.scalars(select(OpenaiFileRow)).one()
        values: dict[str, Any] = {"filename": "f", "purpose": "batch", "num_bytes": 1}
        prefix = openai_files.file_prefix(file.team_id)
        store.put(prefix + "short", b"x")
        openai_files.add_file(session, file.team_id, key=prefix + "short", expires_seconds=3600, **values)
    cleaner = OpenaiCleaner(sessions, store, keep_days=1)
    assert cleaner.run_once(now_of(sessions)) == 0
    assert cleaner.run_once(now_of(sessions) + timedelta(hours=2)) == 1
    with pytest.raises(ObjectMissing):
        store.get(prefix + "short")
    assert cleaner.run_once(now_of(sessions) + timedelta(days=2)) == 0, "its batch has yet to read it"
    with sessions.begin() as session:
        session.execute(update(OpenaiBatchRow).values(state=OpenaiState.failed))
    assert cleaner.run_once(now_of(sessions) + timedelta(days=2)) == 1
    with pytest.raises(ObjectMissing):
        store.get(file.key)


def test_what_no_file_names_is_an_orphan_but_for_an_open_batch(sessions: SessionFactory, store: S3Store) -> None:
    batch_id = make_batch(sessions, store, lines("a"))
    with sessions() as session:
        file = session.scalars(select(OpenaiFileRow)).one()
        prefix = openai_files.file_prefix(file.team_id)
        keys = [file.key, f"{prefix}file_gone", f"{prefix}{batch_id}-output.jsonl"]
        assert naming.orphans_of(session, ["files", file.team_id], keys) == {keys[1]}
