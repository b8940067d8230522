"""Folders of the store that an operator opened: what the reader lists, and that it and a worker refuse all else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from minio import Minio
from PIL import Image

from orchestrator.artifacts import S3Store
from orchestrator.db import jobs, shards, teams
from orchestrator.db.session import SessionFactory, database_now
from orchestrator.dispatch.reader import Reader
from orchestrator.domain.image_refs import ImageRef
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import CaptionOptions, JobKind, JobState
from orchestrator.domain.places import InputPlaces
from orchestrator.settings import Settings
from tests.database import operators_view
from tests.unit.test_tars import make_tar
from workers.errors import BadInput
from workers.inputs import Inputs, open_inputs

pytestmark = pytest.mark.services


class World:
    """A bucket with a folder that is open to everybody, and one that is open to the second team alone."""

    def __init__(self, settings: Settings, sessions: SessionFactory, store: S3Store, operator: Minio) -> None:
        self.sessions, self.store, self.own_bucket = sessions, store, settings.s3_bucket
        self.bucket = f"{settings.s3_bucket}-pictures"
        operator.make_bucket(self.bucket)
        self.pictures = store.in_bucket(self.bucket)
        with sessions.begin() as session:
            self.team, self.other = (teams.create_team(session, name).id for name in ("a", "b"))
        self.open = [f"{self.bucket}/open/", f"{self.other}={self.bucket}/theirs/", f"{self.own_bucket}/shared/"]

    def read(self, *urls: str, team: str = "", opened: list[str] | None = None, **options: Any) -> str:
        """A job of these URLs as if the API had accepted it, read; its id."""
        with self.sessions.begin() as session:
            job, _ = jobs.create_job(
                session, team or self.team, name="t", kind=JobKind.caption, model="m", shard_items=4,
                options=CaptionOptions(**options), input={"s3": list(urls)},
            )  # fmt: skip
            now = database_now(session)
        places = InputPlaces(self.open if opened is None else opened, own_bucket=self.own_bucket)
        Reader(self.sessions, self.store, max_item_line_bytes=2**16, places=places).run_once(now)
        return job.id

    def job(self, job_id: str) -> tuple[str, str | None]:
        with self.sessions() as session:
            job = jobs.get_job(session, job_id)
            return job.state, job.state_reason

    def items(self, job_id: str) -> list[Item]:
        with self.sessions() as session:
            found = shards.list_shards(session, job_id, from_index=0, limit=1000)
            keys = dict.fromkeys(shard.items_key for shard in found)
        return [Item.from_line(line) for key in keys for line in self.store.lines(key, max_line_bytes=2**20)]


@pytest.fixture
def world(environment: dict[str, str], settings: Settings, sessions: SessionFactory, store: S3Store) -> Iterator[World]:
    operator = operators_view(environment)
    made = World(settings, sessions, store, operator)
    yield made
    operator.remove_bucket(made.bucket)


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    return data.getvalue()


def test_images_below_a_prefix_are_named_in_order(world: World) -> None:
    for key in ("open/b/2.jpg", "open/a/1.PNG", "open/a/notes.txt", "open/é #%.gif", "theirs/x.jpg", "opened/y.jpg"):
        world.pictures.put(key, b"x")
    items = world.items(world.read(f"s3://{world.bucket}/open/"))
    assert [(item.id, item.images) for item in items] == [
        (key.removeprefix("open/"), (ImageRef(key, bucket=world.bucket),))
        for key in ("open/a/1.PNG", "open/b/2.jpg", "open/é #%.gif")
    ]
    several = world.items(world.read(f"s3://{world.bucket}/open/a/", f"s3://{world.bucket}/open/b"))
    assert [item.id for item in several] == ["a/1.PNG", "b/2.jpg"]


def test_images_in_tars_are_named_with_their_fields(world: World) -> None:
    files = {"k.png": b"x" * 300_000, "k.json": json.dumps({"tags": ["a", "b"]}).encode(), "l.png": b"y"}
    whole = make_tar(files)
    world.pictures.put("open/x.tar", whole)
    world.pictures.put("open/cut.tar", whole[:2000])
    urls = [f"s3://{world.bucket}/open/{name}.tar" for name in ("x", "cut", "away")]
    items = world.items(world.read(*urls, prompt="{tags}?"))
    assert [item.id for item in items] == ["x.tar/k.png", "x.tar/l.png", "cut.tar/k.png", "away.tar"]
    assert items[0].prompt == "a, b?"
    [ref] = items[0].images
    assert world.pictures.get_range(ref.key, ref.offset, ref.num_bytes or 0) == files["k.png"]
    codes = [item.failure.code if item.failure else None for item in items]
    assert codes == [None, "field_missing", "source_unreadable", "source_unreadable"]
    assert [item.id for item in world.items(world.read(urls[0]))] == ["k.png", "l.png"], "a tar alone is a folder"


def test_the_reader_looks_at_the_list_again(world: World) -> None:
    """The API may have been started with another one, and somebody may write rows."""
    world.store.put(f"uploads/{world.other}/upl_1/secret.png", png())
    world.pictures.put("theirs/x.png", png())
    own = world.own_bucket
    for url in (
        f"s3://{world.bucket}/theirs/",
        f"s3://{own}/uploads/",
        f"s3://{own}/uploads/{world.other}/upl_1/",
        f"s3://{own}/",
        f"s3://{own}/shared/../uploads/",
        f"s3://{world.bucket}/open/../theirs/",
    ):
        state, reason = world.job(world.read(url))
        assert (state, "could not be read" in (reason or "")) == (JobState.failed, True), url
    assert world.job(world.read(f"s3://{world.bucket}/theirs/", team=world.other))[0] == JobState.running
    assert world.job(world.read(f"s3://{world.bucket}/theirs/", team=world.other, opened=[]))[0] == JobState.failed


def test_a_bucket_that_is_not_there_fails_the_job_and_is_not_waited_for(world: World) -> None:
    state, reason = world.job(world.read("s3://no-such-bucket/", opened=["no-such-bucket"]))
    assert state == JobState.failed
    assert "no-such-bucket" in (reason or "") or "input" in (reason or "")


@pytest.fixture
def inputs(world: World, settings: Settings) -> Iterator[Inputs]:
    opened = settings.model_copy(update={"input_buckets": world.open})
    worker = open_inputs(opened, world.store)
    yield worker
    worker.close()


def test_a_worker_looks_at_the_list_too(world: World, inputs: Inputs) -> None:
    """A shard's line names a bucket; were it forged, or the folder closed meanwhile, nothing is read."""
    world.pictures.put("open/a.png", png())
    world.pictures.put("theirs/a.png", png())
    world.store.put(f"uploads/{world.other}/upl_1/a.png", png())

    def read(team_id: str, *refs: ImageRef) -> list[str]:
        found = inputs.decode([("p", each) for each in inputs.fetch([("p", ref) for ref in refs], team_id=team_id)])
        return [each.code if isinstance(each, BadInput) else str(each.size) for each in found]

    theirs = ImageRef("theirs/a.png", 0, len(png()), world.bucket)
    opened, away = (ImageRef(f"open/{name}.png", bucket=world.bucket) for name in ("a", "away"))
    forged = [
        theirs,
        ImageRef("theirs/a.png", bucket=world.bucket),
        ImageRef(f"uploads/{world.other}/upl_1/a.png", bucket=world.own_bucket),
        ImageRef("a.png", bucket="elsewhere"),
    ]
    assert read(world.other, theirs, opened) == ["(4, 4)", "(4, 4)"]
    assert read(world.team, *forged, away, opened) == ["url_refused"] * 4 + ["image_missing", "(4, 4)"]
