"""Every form of results, a thousand items each, from real servers to disk and back again by other people's packages."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import webdataset as wds
from PIL import Image

from orchestrator.client import BadOutput, Client, Job, NothingToSubmit
from tests.system import System

pytestmark = pytest.mark.services
COUNT = 1000
BROKEN = 7  # which is no picture
IMAGES = 2


@pytest.fixture(scope="module")
def client(fast_system: System) -> Iterator[Client]:
    with fast_system.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand pictures in ten folders, of which one is broken."""
    folder = tmp_path_factory.mktemp("thousand")
    for number in range(COUNT):
        path = folder / f"{number % 10}" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number % 256, number // 256, 99)).save(path)
    (folder / f"{BROKEN}" / f"{BROKEN:04d}.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def captioned(client: Client, photos: Path) -> Job:
    job = client.caption(photos, model="chaos")
    assert job.wait(300).items.results == COUNT - 1
    return job


@pytest.fixture(scope="module")
def drawn(client: Client) -> Job:
    job = client.generate([f"prompt {n}" for n in range(COUNT)], model="chaos", images=IMAGES)
    assert job.wait(300).items.results == COUNT
    return job


@pytest.fixture(scope="module")
def captions(captioned: Job) -> dict[str, str]:
    """Of each id its caption, by the API itself."""
    found = {line["id"]: line["caption"] for line in captioned.results() if "caption" in line}
    assert len(found) == COUNT - 1
    return found


def test_jsonl(captioned: Job, captions: dict[str, str], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in captioned.download(tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert [line["index"] for line in lines] == list(range(COUNT))
    assert {line["id"]: line["caption"] for line in lines if "caption" in line} == captions


def test_csv_and_parquet_by_pandas(captioned: Job, captions: dict[str, str], tmp_path: Path) -> None:
    tables = [
        pd.read_csv(captioned.download(tmp_path / "a.csv")),
        pd.read_parquet(captioned.download(tmp_path / "a.parquet")),
        captioned.to_pandas(),
    ]
    for table in tables:
        assert list(table["index"]) == list(range(COUNT))
        good = table[table["failure_code"].isna()]
        assert dict(zip(good["id"], good["caption"], strict=True)) == captions
        (failure,) = table[table["failure_code"].notna()].to_dict("records")
        assert (failure["id"], failure["failure_code"]) == (f"{BROKEN}/{BROKEN:04d}.png", "image_unreadable")
    assert str(tables[1]["num_tokens"].dtype) == "float64"  # whole numbers, one of them missing


@pytest.mark.parametrize("sidecar", ["txt", "json"])
def test_sidecars_by_name(sidecar: str, captioned: Job, captions: dict[str, str], tmp_path: Path) -> None:
    captioned.download(tmp_path / "out", sidecar=sidecar)
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob(f"*.{sidecar}")}
    assert set(found) == {name.replace(".png", f".{sidecar}") for name in captions}
    for item_id, caption in captions.items():
        text = found[item_id.replace(".png", f".{sidecar}")].read_text()
        assert (json.loads(text)["caption"] if sidecar == "json" else text) == (
            caption if sidecar == "json" else f"{caption}\n"
        )


def test_webdataset_by_webdataset(captioned: Job, captions: dict[str, str], tmp_path: Path) -> None:
    folder = captioned.download(tmp_path / "out", form="webdataset", shard_items=300)
    assert sorted(path.name for path in folder.iterdir()) == [*(f"0000{n}.tar" for n in range(4)), "failures.jsonl"]
    samples = read_tars(folder)
    assert [json.loads(s["json"])["index"] for s in samples] == [n for n in range(COUNT) if n != lost_index(captioned)]
    assert {json.loads(s["json"])["id"]: s["txt"].decode() for s in samples} == captions
    again = captioned.download(tmp_path / "again", form="webdataset", shard_items=300)
    for number in range(4):
        assert (again / f"0000{number}.tar").read_bytes() == (folder / f"0000{number}.tar").read_bytes()
    with pytest.raises(BadOutput, match="not empty"):
        captioned.download(folder, form="webdataset")
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(BadOutput, match="mine"):
        captioned.download(folder, form="webdataset", existing="overwrite")


def test_captions_beside_the_bytes_of_the_tars_that_were_captioned(
    fast_system: System, photos: Path, tmp_path: Path
) -> None:
    sources = list(write_tars(photos, tmp_path))
    given = ["caption", f"{tmp_path}/{{00000..00009}}.tar", "--model", "chaos", "--out", str(tmp_path / "out")]
    done = fast_system.janus(*given, "--format", "webdataset")
    assert done.returncode == 3, done.stderr  # of the broken one
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == [path.name for path in sources]
    samples = read_tars(tmp_path / "out")
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert [f"{s['__key__']}.png" for s in samples] == [n for n in names if n != f"{BROKEN}/{BROKEN:04d}.png"]
    for sample in samples:
        assert sample["png"] == (photos / f"{sample['__key__']}.png").read_bytes()
        assert sample["original.txt"] == b"of the web"
        line = json.loads(sample["janus.json"])
        assert line["id"] == f"{sample['__key__'][0]:0>5}.tar/{sample['__key__']}.png"
        assert sample["txt"].decode() == line["caption"]
    assert {Path(s["__url__"]).stem: s["__key__"][0] for s in samples} == {f"{n:05d}": f"{n}" for n in range(10)}
    (failure,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == f"{BROKEN:05d}.tar/{BROKEN}/{BROKEN:04d}.png"


def test_drawn_images_by_webdataset(drawn: Job, tmp_path: Path) -> None:
    samples = read_tars(drawn.download(tmp_path / "out", form="webdataset", shard_items=500))
    assert [s["__key__"] for s in samples] == [f"{n:09d}-{k}" for n in range(COUNT) for k in range(IMAGES)]
    for number, sample in enumerate(samples):
        line = json.loads(sample["json"])
        assert sample["txt"].decode() == line["prompt"] == f"prompt {number // IMAGES}"
        assert Image.open(io.BytesIO(sample["png"])).size == (16, 16)


def test_datasets(captioned: Job, drawn: Job, captions: dict[str, str], tmp_path: Path) -> None:
    rows = captioned.to_dataset()
    assert {row["id"]: row["caption"] for row in rows if row["caption"]} == captions
    drawn.to_dataset(tmp_path / "drawn")
    pictures = datasets.load_from_disk(str(tmp_path / "drawn"))
    assert pictures["prompt"][:] == [f"prompt {n}" for n in range(COUNT)]
    lines = list(drawn.results())
    for row, line in zip(pictures, lines, strict=True):
        assert [picture.size for picture in row["images"]] == [(16, 16)] * IMAGES
        assert row["image_seeds"] == [image["seed"] for image in line["images"]]


def test_drawn_images_in_a_folder_and_as_tables(drawn: Job, tmp_path: Path) -> None:
    folder = drawn.download(tmp_path / "out")
    assert len(list(folder.glob("*.png"))) == COUNT * IMAGES
    table = pd.read_parquet(drawn.download(tmp_path / "a.parquet"))
    assert [image["file"] for images in table["images"] for image in images] == sorted(
        path.name for path in folder.glob("*.png")
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "folder"])
def test_skip_submits_what_is_missing_and_adds_it(
    name: str, client: Client, photos: Path, captions: dict[str, str], tmp_path: Path
) -> None:
    out, some = tmp_path / name, photos / "3"
    first = client.caption(some, model="chaos", out=out)
    first.wait(120)
    first.download(out)
    with pytest.raises(BadOutput, match="existing"):
        client.caption(some, model="chaos", out=out)
    with pytest.raises(NothingToSubmit, match="each of 100 items"):
        client.caption(some, model="chaos", out=out, existing="skip")
    for path in sorted(some.iterdir())[:5]:
        (some / f"new-{path.name}").write_bytes(path.read_bytes())
    try:
        second = client.caption(some, model="chaos", out=out, existing="skip")
        assert second.wait(120).items.total == 5
        for _ in range(2):  # writing twice is writing once
            second.download(out, existing="skip")
    finally:
        for path in some.glob("new-*"):
            path.unlink()
    ids = [row["id"] for row in read_rows(out)]
    assert len(ids) == len(set(ids)) == 105
    assert [row["index"] for row in read_rows(out)] == list(range(105))
    if name == "folder":
        assert len(list(out.glob("*.txt"))) == 105
        client.caption(photos / "4", model="chaos", out=out, existing="overwrite").cancel()


def test_skip_draws_what_is_missing_and_adds_it(client: Client, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "a.parquet"
    prompts = [f"prompt {n}" for n in range(8)]
    first = client.generate(prompts[:5], model="chaos", images=2)
    first.wait(60)
    first.download(out)
    first.download(table)
    with pytest.raises(BadOutput, match="holds results already"):
        client.generate(prompts, model="chaos", out=out)
    second = client.generate(["another", *prompts[1:]], model="chaos", images=2, out=out, existing="skip")
    assert second.wait(60).items.total == 4, "the prompt counts too"
    for _ in range(2):
        second.download(out, existing="skip")
        second.download(table, existing="skip")
    rows = read_rows(out)
    assert [row["prompt"] for row in rows] == [*prompts[:5], "another", *prompts[5:]]
    assert [row["index"] for row in rows] == list(range(9))
    for row in rows:
        for image in row["images"]:
            assert hashlib.sha256((out / image["file"]).read_bytes()).hexdigest() == image["sha256"]
    assert sorted(image["file"] for row in rows for image in row["images"]) == sorted(p.name for p in out.glob("*.png"))
    assert [row["prompt"] for row in read_rows(table)] == [row["prompt"] for row in rows]


def test_existing_sidecars(client: Client, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, text in (("a", "mine"), ("b", None)):
        Image.new("RGB", (16, 16), (1, 2, 3)).save(photos / f"{name}.png")
        if text:
            (photos / f"{name}.txt").write_text(text)
    with pytest.raises(BadOutput, match=r"a\.txt is there already; say skip .*`--existing skip`"):
        client.caption(photos, model="chaos", out=photos)
    job = client.caption(photos, model="chaos", seed=1)
    job.wait(60)
    caption = next(iter(job.results()))["caption"]
    with pytest.raises(BadOutput, match=r"a\.txt was written or changed by somebody else"):
        job.download(photos)
    assert not (photos / "b.txt").exists()
    expected = {"append": f"mine {caption}", "prepend": f"{caption} mine {caption}", "overwrite": caption}
    for existing, text in expected.items():
        for _ in range(2):
            job.download(photos, existing=existing)
            assert (photos / "a.txt").read_text() == f"{text}\n"
    job.download(photos)  # what is there is what the job says
    skipping = client.caption(photos, model="chaos", out=tmp_path / "other", existing="skip")
    assert skipping.wait(60).items.total == 2


def test_command_line_keeps_what_is_there(fast_system: System, photos: Path, tmp_path: Path) -> None:
    given = ["caption", str(photos / "5"), "--model", "chaos", "--out", str(tmp_path / "a.csv")]
    assert fast_system.janus(*given).returncode == 0
    before = (tmp_path / "a.csv").read_bytes()
    refused = fast_system.janus(*given)
    assert refused.returncode == 1
    assert "--existing" in refused.stderr or "existing skip" in refused.stderr
    nothing = fast_system.janus(*given, "--existing", "skip")
    assert (nothing.returncode, (tmp_path / "a.csv").read_bytes()) == (0, before)
    assert "each of 100 items has its result" in nothing.stderr


def test_retry_of_certain_failures(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    lines = [
        {"image": "good.png"},
        {"image": "bad.png"},
        {"image": "gone.png"},
        {"image": "good.png", "id": "good.png"},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = client.caption(tmp_path / "items.jsonl", model="chaos")
    assert job.wait(60).items.failures == 3
    again = job.retry_failures(codes=["image_missing"], idempotency_key="some")
    assert again.wait(60).items.total == 1
    assert [failure.id for failure in again.failures()] == ["gone.png"]
    assert job.retry_failures(codes=["image_missing"], idempotency_key="some").id == again.id
    assert job.retry_failures().wait(60).items.total == 3


def read_tars(folder: Path) -> list[dict[str, Any]]:
    """Samples, by the package's own reader; its loader leaves the last file to the garbage collector."""
    samples: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as stream:
            files = wds.tariterators.tar_file_expander([{"url": str(path), "stream": stream}])
            samples += wds.tariterators.group_by_keys(files)
    return samples


def read_rows(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".csv":
        return list(pd.read_csv(out).to_dict("records"))
    if out.suffix == ".parquet":
        return list(pd.read_parquet(out).to_dict("records"))
    path = out / "results.jsonl" if out.is_dir() else out
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def lost_index(job: Job) -> int:
    (failure,) = job.failures()
    return failure.index


def write_tars(photos: Path, folder: Path) -> Iterator[Path]:
    """A tar for each folder of photos, as `img2dataset` would write it."""
    for number in range(10):
        path = folder / f"{number:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for photo in sorted((photos / str(number)).iterdir()):
                for name, data in ((photo.name, photo.read_bytes()), (f"{photo.stem}.txt", b"of the web")):
                    member = tarfile.TarInfo(f"{number}/{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        yield path
