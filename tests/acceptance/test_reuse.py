"""What the team has is not computed again, and equal items once; counted at the engine, on the whole system."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest
from PIL import Image

from orchestrator.artifacts import open_store
from orchestrator.client import Job
from orchestrator.domain.jobs import JobState
from tests.chaos.engine import BOOK, STEP
from tests.chaos.points import DIED
from tests.database import own_database
from tests.system import System

pytestmark = pytest.mark.services


class Counted:
    """A new team of a system with one worker whose engine writes down every request that it answers."""

    def __init__(self, system: System, book: Path, team: str) -> None:
        self.system = system
        self.key = system.make_key(team)
        self.client = system.client(self.key)
        self._book, self._team = book, team
        self._computed_before = self._written()

    @property
    def computed(self) -> int:
        """Requests since the team began; the tests before it have ended."""
        return self._written() - self._computed_before

    def _written(self) -> int:
        return len(self._book.read_text().splitlines()) if self._book.exists() else 0

    def start_worker(self, name: str, **variables: str) -> None:
        self.system.run(
            name, "tests.chaos.process", CHAOS_ROLE="worker", JANUS_WORKER_ID=f"{name}-{time.time_ns()}", **variables
        )
        self.system.wait_for_workers(1)

    def finish(self, job: Job) -> list[dict[str, Any]]:
        view = job.wait(120)
        assert view.state is JobState.completed, self.system.log_ends()
        assert view.items.results == view.items.total, list(job.failures())
        assert job.verify().ok
        return list(job.results())

    def notes(self) -> list[tuple[str, int]]:
        """What the database knows: of each part its job, and how many results of it may be used again."""
        return self.ask(
            "SELECT job_id, cardinality(identities) FROM reusable_parts JOIN jobs ON jobs.id = job_id "
            "WHERE jobs.team_id = %s ORDER BY reusable_parts.created_at",
            self.team_id,
        )

    @property
    def team_id(self) -> str:
        [(team_id,)] = self.ask("SELECT id FROM teams WHERE name = %s", self._team)
        return str(team_id)

    def ask(self, statement: LiteralString, *values: str) -> list[Any]:
        url = self.system.settings.database_url.get_secret_value().replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            done = connection.execute(statement, values)
            return done.fetchall() if done.description else []


@pytest.fixture(scope="module")
def house(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Path]]:
    """API and dispatcher; each test sees to it that a worker runs."""
    logs = tmp_path_factory.mktemp("reuse")
    with own_database(servers) as environment:
        system = System(environment, logs, "chaos", **{BOOK: str(logs / "book"), STEP: "0"})
        try:
            system.run("api", "orchestrator.api")
            system.run("dispatcher", "orchestrator.dispatch")
            yield system, logs / "book"
        finally:
            system.stop()


@pytest.fixture
def counted(house: tuple[System, Path], request: pytest.FixtureRequest) -> Iterator[Counted]:
    world = Counted(*house, team=request.node.name)
    if "worker" not in world.system.processes:
        world.start_worker("worker")
    yield world
    world.client.close()
    for name in set(world.system.processes) - {"api", "dispatcher", "worker"}:
        world.system.kill(name)


def colours(folder: Path, first: int, count: int) -> Path:
    """So many pictures, each of a colour of its own."""
    folder.mkdir(exist_ok=True)
    for n in range(first, first + count):
        Image.new("RGB", (16, 16), (n % 256, n // 256, 99)).save(folder / f"{n:05d}.png")
    return folder


def test_a_job_that_is_run_again_with_thirty_new_images_computes_thirty(counted: Counted, tmp_path: Path) -> None:
    photos = colours(tmp_path / "photos", 0, 1000)
    first = counted.finish(counted.client.caption(photos, prompt="what", temperature=0.5, seed=5))
    assert counted.computed == 1000
    colours(photos, 1000, 30)
    again = counted.client.caption(photos, prompt="what", temperature=0.5, seed=5)
    lines = counted.finish(again)
    assert counted.computed == 1030
    assert lines[:1000] == first
    assert (again.view.items.total, again.view.items.reused) == (1030, 1000)
    other_words = counted.client.caption(photos, prompt="which", temperature=0.5, seed=5)
    counted.finish(other_words)
    anew = counted.client.caption(photos, prompt="what", temperature=0.5, seed=5, reuse=False)
    assert counted.finish(anew) == lines
    assert counted.computed == 1030 * 3
    assert (other_words.view.items.reused, anew.view.items.reused) == (0, 0)


def test_two_hundred_copies_of_five_images_compute_five_and_send_five(counted: Counted, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    colours(photos, 0, 5)
    for n in range(5, 200):
        (photos / f"{n:05d}.png").write_bytes((photos / f"{n % 5:05d}.png").read_bytes())
    job = counted.client.caption(photos, prompt="what", shard_items=20)
    lines = counted.finish(job)
    assert counted.computed == 5
    assert job.view.items.reused == 195
    assert [line["seed"] for line in lines] == list(range(200))
    assert len({line["caption"] for line in lines}) == 5
    assert [line["caption"] for line in lines] == [lines[n % 5]["caption"] for n in range(200)]
    store = open_store(counted.system.settings)
    sent = {item.key.rpartition("/")[2]: item.num_bytes for item in store.list(f"uploads/{counted.team_id}/")}
    store.close()
    assert sent["000000000"] == sum((photos / f"{n:05d}.png").stat().st_size for n in range(5))
    assert sum(n for _, n in counted.notes()) == 5, "an identity is noted once"


def test_images_whose_digests_nobody_told_are_hashed_by_the_worker(counted: Counted, tmp_path: Path) -> None:
    photos = colours(tmp_path / "photos", 0, 40)
    told = counted.finish(counted.client.caption(photos, prompt="what"))
    lines = counted.finish(by_http(counted, photos, None))
    assert counted.computed == 40
    assert [line["caption"] for line in lines] == [line["caption"] for line in told]


def test_a_wrong_digest_costs_its_own_item_and_no_equal_one(counted: Counted, tmp_path: Path) -> None:
    """The picture 0 is said to be the picture 1: while nobody knows that one, nobody gets what 0 is answered."""
    photos = colours(tmp_path / "photos", 0, 2)
    digest = hashlib.sha256((photos / "00001.png").read_bytes()).hexdigest()
    items = [{"id": f"{n}", "image": {"object": f"0000{n % 2}.png", "sha256": digest}} for n in range(8)]
    lines = counted.finish(by_http(counted, photos, items))
    truth = counted.finish(counted.client.caption(photos, prompt="what", reuse=False))
    zero, one = (colour_told(line) for line in truth)
    assert {colour_told(line) for line in lines if line["index"] % 2} == {one}
    assert {colour_told(line) for line in lines} <= {zero, one}
    again = counted.client.caption(photos, prompt="what")
    assert [colour_told(line) for line in counted.finish(again)] == [zero, one]
    assert again.view.items.reused == 2


def colour_told(line: dict[str, Any]) -> str:
    """The colour in what the fast engine answers, which ends in a seed."""
    colour: str = line["caption"].partition(" with seed ")[0]
    return colour


def by_http(counted: Counted, photos: Path, items: list[dict[str, Any]] | None) -> Job:
    """A job of files that are objects of their own, as somebody without our client makes it."""
    headers = {"Authorization": f"Bearer {counted.key}"}
    with httpx.Client(base_url=counted.system.url, headers=headers) as http:
        upload = http.post("/v1/uploads").raise_for_status().json()["id"]
        paths = sorted(photos.iterdir())
        names = {"names": [path.name for path in paths]}
        links = http.post(f"/v1/uploads/{upload}/urls", json=names).raise_for_status().json()["urls"]
        for path, link in zip(paths, links, strict=True):
            httpx.put(link, content=path.read_bytes()).raise_for_status()
        body: dict[str, Any] = {"kind": "caption", "model": "chaos", "options": {"prompt": "what"}}
        body["input"] = {"upload": upload} | ({"items": items} if items else {})
        made = http.post("/v1/jobs", json=body).raise_for_status().json()
    return counted.client.attach(made["id"])


def test_another_team_finds_nothing(counted: Counted, tmp_path: Path) -> None:
    photos = colours(tmp_path / "photos", 0, 12)
    counted.finish(counted.client.caption(photos, prompt="what"))
    with counted.system.client(counted.system.make_key("others")) as other:
        job = other.caption(photos, prompt="what")
        counted.finish(job)
        assert counted.computed == 24
        assert job.view.items.reused == 0


def test_pictures_are_the_new_jobs_own_and_stay_when_the_first_job_is_deleted(counted: Counted) -> None:
    prompts = [f"a cat {n}" for n in range(20)]
    first = counted.client.generate(prompts, seed=3, images=2)
    second = counted.client.generate(prompts, seed=3, images=2)
    lines = counted.finish(first)
    assert counted.finish(second) == lines
    assert counted.computed == 40
    assert second.view.items.reused == 20
    store = open_store(counted.system.settings)
    try:
        first.delete()
        counted.system.wait_until(lambda: not list(store.list(f"jobs/{first.id}/")), "the first job's objects are gone")
        assert second.verify().ok
        assert counted.finish(second) == lines
        counted.system.wait_until(
            lambda: first.id not in {job_id for job_id, _ in counted.notes()}, "what was known from it is forgotten"
        )
        third = counted.client.generate(prompts, seed=3, images=2)
        assert counted.finish(third) == lines
    finally:
        store.close()


def test_a_worker_that_dies_between_flush_and_commit_leaves_no_note(counted: Counted) -> None:
    counted.system.kill("worker")
    counted.start_worker("dying", CHAOS_POINT="orchestrator.db.leases:append_part/returned/kill")
    job = counted.client.generate([f"a dog {n}" for n in range(10)], shard_items=10)
    assert counted.system.processes["dying"].wait(60) == DIED
    computed = counted.computed
    assert computed >= 8, "a part was put"
    assert counted.notes() == []
    counted.start_worker("next")
    counted.finish(job)
    assert sum(n for _, n in counted.notes()) == 10
    assert job.view.items.reused == 0


def test_what_is_too_old_is_forgotten(counted: Counted) -> None:
    prompts = [f"a horse {n}" for n in range(4)]
    counted.finish(counted.client.generate(prompts))
    counted.ask("UPDATE reusable_parts SET created_at = now() - interval '31 days'")
    counted.system.wait_until(lambda: not counted.notes(), "the cleaner forgets it")
    counted.system.kill("worker")  # which remembers what it computed lately
    counted.start_worker("another")
    counted.finish(counted.client.generate(prompts))
    assert counted.computed == 8
