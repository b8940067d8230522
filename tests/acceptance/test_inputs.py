"""Every form of input through the whole system: a thousand pictures each, and each answer is about its own picture.

Picture `n` has a colour of its own, and the engine says which colour it sees and what it was asked.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pytest
import webdataset
from minio import Minio
from PIL import Image
from pyarrow import parquet

from orchestrator.client import BadSource, InvalidRequest, Job
from orchestrator.domain.jobs import JobState
from tests.database import operators_view, own_database
from tests.system import System, running_system

pytestmark = pytest.mark.services
COUNT = 1000
PROMPT = "Tagged {tags}."


def colour(number: int) -> tuple[int, int, int]:
    return number // 32 * 8, number % 32 * 8, 77


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour(number)).save(data, "PNG")
    return data.getvalue()


def tags(number: int) -> str:
    return f"t{number}"


class Forms:
    """A thousand pictures in each form; `folder` holds them as files `sub-0/0000.png` and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"sub-{number % 10}/{number:04d}.png" for number in range(COUNT)]
        for number, name in enumerate(self.names):
            path = folder / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))

    def photos(self) -> Any:
        return self.folder / "photos"

    def glob(self) -> Any:
        return str(self.folder / "photos" / "**" / "*.png")

    def csv(self) -> Any:
        path = self.folder / "photos" / "table.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["picture of it", "tags"])
            writer.writerows([name, tags(number)] for number, name in enumerate(self.names))
        return path

    def parquet(self) -> Any:
        """As datasets of Hugging Face are stored: bytes in a struct."""
        path = self.folder / "table.parquet"
        pictures = [{"bytes": png(number), "path": None} for number in range(COUNT)]
        rows = {"image": pictures, "id": self.names, "tags": [[tags(number)] for number in range(COUNT)]}
        parquet.write_table(pyarrow.table(rows), path, row_group_size=100)
        return path

    def manifest(self) -> Any:
        path = self.folder / "photos" / "items.jsonl"
        lines = [{"image": name, "fields": {"tags": tags(number)}} for number, name in enumerate(self.names)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def tars(self) -> Any:
        """Ten shards as the `webdataset` package writes them."""
        with webdataset.ShardWriter(str(self.folder / "shard-%03d.tar"), maxcount=100, verbose=0) as writer:
            for number in range(COUNT):
                key = self.names[number].removesuffix(".png")
                writer.write({"__key__": key, "png": png(number), "json": {"tags": [tags(number)]}})
        return str(self.folder / "shard-{000..009}.tar")

    def frame(self) -> Any:
        paths = [str(self.folder / "photos" / name) for name in self.names]
        return pandas.DataFrame({"path": paths, "id": self.names, "tags": [tags(n) for n in range(COUNT)]})

    def dataset(self) -> Any:
        paths = [str(self.folder / "photos" / name) for name in self.names]
        rows = {"id": self.names, "photo": paths, "tags": [tags(number) for number in range(COUNT)]}
        return datasets.Dataset.from_dict(rows).cast_column("photo", datasets.Image())

    def stream(self) -> Any:
        return self.dataset().to_iterable_dataset(num_shards=4)

    def pictures(self) -> Any:
        return (Image.new("RGB", (8, 8), colour(number)) for number in range(COUNT))


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return Forms(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="module")
def system(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A worker with an engine that echoes, and two buckets, of which folders are open."""
    settings = {
        "JANUS_SHARDS_IN_FLIGHT": "4",
        "JANUS_ATTEMPT_SECONDS": "60",
    }
    logs = tmp_path_factory.mktemp("logs")
    with own_database(servers) as given:
        own = given["JANUS_S3_BUCKET"]
        settings["JANUS_INPUT_BUCKETS"] = f"pictures/open/,team_of_nobody=pictures/theirs/,{own}/shared/"
        with running_system(given, logs, "echo", workers=0, **settings) as started:
            started.run("worker", "tests.echo_worker")
            started.wait_for_workers(1)
            yield started


@pytest.fixture(scope="module")
def bucket(system: System) -> Iterator[Minio]:
    """The store, with a bucket of pictures, as its operator sees it."""
    client = operators_view(system.environment)
    client.make_bucket("pictures")
    yield client
    client.remove_bucket("pictures")


def put(bucket: Minio, key: str, data: bytes, name: str = "pictures") -> None:
    bucket.put_object(name, key, io.BytesIO(data), len(data))


def keys_below(bucket: Minio, name: str, prefix: str) -> list[str]:
    return [entry.object_name or "" for entry in bucket.list_objects(name, prefix=prefix, recursive=True)]


def answers(job: Job) -> dict[str, str]:
    view = job.wait(180)
    assert view.state is JobState.completed, view.state_reason
    found = list(job.results())
    assert [line["index"] for line in found] == list(range(view.items.total))
    return {
        line["id"]: line.get("caption") or f"{line['failure']['code']}: {line['failure']['message']}" for line in found
    }


def expected(ids: list[str], prompt: Callable[[int], str]) -> dict[str, str]:
    return {item_id: f"[{colour(number)}] {prompt(number)}" for number, item_id in enumerate(ids)}


with_tags: dict[str, dict[str, str]] = {
    "csv": {"image_column": "picture of it"},
    "parquet": {},
    "manifest": {},
    "frame": {},
    "dataset": {},
    "stream": {},
}


@pytest.mark.parametrize("form", with_tags)
def test_a_thousand_rows_with_fields(system: System, forms: Forms, form: str) -> None:
    with system.client() as client:
        job = client.caption(getattr(forms, form)(), prompt=PROMPT, shard_items=100, **with_tags[form])
        assert answers(job) == expected(forms.names, lambda number: f"Tagged {tags(number)}.")


def test_a_thousand_pictures_of_ten_tars(system: System, forms: Forms) -> None:
    with system.client() as client:
        job = client.caption(forms.tars(), prompt=PROMPT, shard_items=100)
        ids = [f"shard-{number // 100:03d}.tar/{name}" for number, name in enumerate(forms.names)]
        assert answers(job) == expected(ids, lambda number: f"Tagged {tags(number)}.")


@pytest.mark.parametrize("form", ["photos", "glob"])
def test_a_thousand_files(system: System, forms: Forms, form: str) -> None:
    with system.client() as client:
        job = client.caption(getattr(forms, form)(), prompt="{folder} {name}", shard_items=100)
        assert answers(job) == expected(forms.names, lambda number: f"sub-{number % 10} {number:04d}")


def test_a_thousand_pictures_in_memory(system: System, forms: Forms) -> None:
    with system.client() as client:
        job = client.caption(forms.pictures(), prompt="{id}?", shard_items=100)
        assert answers(job) == expected([str(number) for number in range(COUNT)], lambda number: f"{number}?")


def test_a_thousand_objects_that_lie_in_the_store(system: System, forms: Forms, bucket: Minio) -> None:
    own = system.settings.s3_bucket
    for number, name in enumerate(forms.names):
        put(bucket, f"open/{name}", png(number))
    put(bucket, "open/notes.txt", b"no picture")
    forms.tars()
    shards = sorted(forms.folder.glob("shard-*.tar"))
    for shard in shards:
        put(bucket, f"open/tars/{shard.name}", shard.read_bytes())
    sent_before = keys_below(bucket, own, "uploads/")
    in_order = sorted(range(COUNT), key=lambda number: forms.names[number])
    with system.client() as client:
        job = client.caption("s3://pictures/open/", prompt="{folder} {name}", shard_items=100)
        assert answers(job) == {forms.names[n]: f"[{colour(n)}] sub-{n % 10} {n:04d}" for n in in_order}
        job = client.caption("s3://pictures/open/tars/shard-{000..009}.tar", prompt=PROMPT, shard_items=100)
        ids = [f"shard-{number // 100:03d}.tar/{name}" for number, name in enumerate(forms.names)]
        assert answers(job) == expected(ids, lambda number: f"Tagged {tags(number)}.")
        assert keys_below(bucket, own, "uploads/") == sent_before, "nothing was sent again"
        job.delete()
        system.wait_until(lambda: not keys_below(bucket, own, f"jobs/{job.id}/"), "the job is deleted")
    assert len(keys_below(bucket, "pictures", "open/")) == COUNT + 11, "what a job only read stays"


def test_a_sweep_draws_every_combination(system: System) -> None:
    with system.client() as client:
        sweep = {"guidance": [3, 5.5], "seed": [1, 2], "images": [1, 2]}
        job = client.generate((f"prompt {number}" for number in range(125)), sweep=sweep)
        assert job.wait(180).items.results == COUNT
        lines = list(job.results())
    assert lines[0]["id"] == "0-guidance=3-seed=1-images=1"
    assert lines[7]["id"] == "0-guidance=5.5-seed=2-images=2"
    assert len({line["id"] for line in lines}) == COUNT
    for number, line in enumerate(lines):
        assert line["prompt"] == f"prompt {number // 8}"
        assert line["options"] == {"guidance": sweep["guidance"][number // 4 % 2], "images": number % 2 + 1}
        assert [image["seed"] for image in line["images"]] == [number // 2 % 2 + 1 + k for k in range(number % 2 + 1)]


def test_bad_rows_and_damaged_tars_cost_their_own_items(system: System, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "rows.csv").write_text(
        "id,file,tags\na,a.png,x\nb,b.png,\nc,,x\nd,away.png,x\ne,a.png,x,more\n,a.png,x\n"
    )
    tar = tmp_path / "cut.tar"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        file.add(tmp_path / "a.png", "a.png")
        file.add(tmp_path / "b.png", "b.png")
    tar.write_bytes(tar.read_bytes()[: 1024 + 512 + 20])
    with system.client() as client:
        rows = answers(client.caption(tmp_path / "rows.csv", prompt=PROMPT))
        cut = answers(client.caption(tar))
    assert rows["a"] == rows["a.png"] == f"[{colour(1)}] Tagged x."
    assert rows["b"] == f"[{colour(1)}] Tagged ."
    assert "source_unreadable: items[2]" in rows["c"]
    assert "'file' is empty" in rows["c"]
    assert rows["d"].startswith("image_missing")
    assert "row 5: it has more cells" in rows["4"]
    assert cut["a.png"].startswith(f"[{colour(1)}]")
    assert "the tar ends within it: 20 of" in cut["b.png"]


def test_what_is_not_open_is_refused_in_a_job_and_in_a_line(system: System, bucket: Minio, tmp_path: Path) -> None:
    """As a stranger with a key would try it: another team's folder, uploads and results, and every way around."""
    own = system.settings.s3_bucket
    put(bucket, "theirs/a.png", png(1))
    put(bucket, "open/mine/a.png", png(2))
    victim, stranger = (system.client(system.make_key(team)) for team in ("victims", "strangers"))
    (tmp_path / "secret.png").write_bytes(png(3))
    with victim, stranger:
        victim.caption(tmp_path / "secret.png").wait(60)
        secrets = [*keys_below(bucket, own, "uploads/"), *keys_below(bucket, own, "jobs/")]
        closed = [
            "s3://pictures/theirs/a.png",
            "s3://pictures/open/../theirs/a.png",
            "s3://pictures/open//../theirs/a.png",
            "s3://pictures/open/%2e%2e/theirs/a.png",
            f"s3://{own}/shared/../uploads/",
            f"s3://{own}/",
            *(f"s3://{own}/{key}" for key in secrets[-20:]),
        ]
        for url in closed:
            if "%2e" in url:
                continue  # a name like any other, below a folder that is open
            with pytest.raises(InvalidRequest) as refused:
                stranger.caption(url)
            assert refused.value.code == "place_refused", url
        with pytest.raises(BadSource, match="beside other sources"):
            stranger.caption(["s3://pictures/open/", tmp_path])
        manifest = tmp_path / "hostile.jsonl"
        parts: list[Any] = [{"object": url, "offset": 0, "num_bytes": 77} for url in closed]
        lines = [{"id": str(number), "image": image} for number, image in enumerate([*closed, *parts])]
        lines.append({"id": "mine", "image": "s3://pictures/open/mine/a.png"})
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = answers(stranger.caption(manifest))
    assert found.pop("mine").startswith(f"[{colour(2)}]")
    for item_id, answer in found.items():
        image = lines[int(item_id)]["image"]
        code = "image_missing" if "%2e" in str(image) else "url_refused"
        assert answer.startswith(code), (image, answer)
