"""Sources on this machine: which items they are, what is sent of them, and what is told before anything is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from orchestrator.client import BadSource, InvalidOption
from orchestrator.client._bundles import STRETCH_BYTES, OutgoingObject
from orchestrator.client._sources import (
    Columns,
    Region,
    SourceItem,
    bucket_urls,
    name_sources,
    read_image_sources,
    read_prompt_sources,
    sweep_over,
)
from orchestrator.client._sources.braces import expand_braces
from orchestrator.client._uploads import pack
from orchestrator.domain.jobs import GenerateOptions
from tests.unit.test_tars import make_tar


def lines(items: Iterator[SourceItem]) -> list[Any]:
    return [item.line for item in items]


def sent(items: Iterator[SourceItem]) -> tuple[list[dict[str, Any]], dict[str, OutgoingObject]]:
    manifest = io.BytesIO()
    objects = {each.name: each for each in pack(items, manifest)}
    return [json.loads(line) for line in manifest.getvalue().splitlines()], objects


def bytes_of(place: Any, objects: dict[str, OutgoingObject]) -> bytes:
    if isinstance(place, str):
        return b"".join(objects[place].read())
    data = b"".join(objects[place["object"]].read())
    assert len(data) == objects[place["object"]].length()
    return data[place["offset"] :][: place["num_bytes"]]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{008..010}.tar", ["s-008.tar", "s-009.tar", "s-010.tar"]),
        ("{a,b}-{1..2}", ["a-1", "a-2", "b-1", "b-2"]),
        ("{a}{}{2..1}.tar", []),
        ("{x}", ["{x}"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_braces_without_measure_are_told() -> None:
    with pytest.raises(BadSource, match="more than 100000"):
        expand_braces("{0..999999999}")


def test_columns_are_told_or_guessed_and_else_listed() -> None:
    have = ["url", "img", "id", "note"]
    assert Columns().of_images("t", have).image == "img"
    assert Columns().of_images("t", have, ["note"]).image == "note"
    assert Columns().of_images("t", have).prompt is None, "a column named prompt is no question unless it is said"
    assert Columns("url", "note", "img", frozenset({"note", "name"})).of_images("t", have).wanted() == [
        "url", "note", "img", "name",
    ]  # fmt: skip
    for wrong, says in (
        (Columns("photo"), "no column 'photo'; it has url, img, id, note. Say which one it is: image_column="),
        (Columns(id="x"), "id_column="),
        (Columns(prompt="x"), "prompt_column="),
        (Columns(fields=frozenset({"tags"})), r"names \{tags\}, which is no column; it has url"),
    ):
        with pytest.raises(BadSource, match=says):
            wrong.of_images("t", have)
    with pytest.raises(BadSource, match="no column that I know; it has a, b"):
        Columns().of_images("t", ["a", "b"])


def test_what_is_wrong_with_the_last_source_is_told_before_the_first_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for last, says in (("away.png", "no such file"), ("t.csv", "it has a, b"), ("x.tar.gz", "unpack it")):
        (tmp_path / "x.tar.gz").write_bytes(b"")
        with pytest.raises(BadSource, match=says):
            read_image_sources([tmp_path / "a.png", tmp_path / last])
    with pytest.raises(BadSource, match="int is no source"):
        read_image_sources([7])
    with pytest.raises(BadSource, match="prompt_column="):
        read_prompt_sources([], tmp_path / "t.csv")


def test_rows_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    table = '\ufefffile,question,tags,seed\na.png,Why?,"x, y",1\nhttps://example.org/b.png,,z,2\n,,,\n'
    (tmp_path / "t.csv").write_text(table, encoding="utf-8")
    columns = Columns(prompt="question", fields=frozenset({"tags"}))
    first, second, third = read_image_sources(tmp_path / "t.csv", columns)
    assert first == SourceItem({"id": "a.png", "prompt": "Why?", "fields": {"tags": "x, y"}}, [tmp_path / "a.png"])
    assert second == SourceItem({"fields": {"tags": "z"}}, ["https://example.org/b.png"])
    assert third.line == {"failure": f"{tmp_path}/t.csv, row 3: the column 'file' is empty"}


def test_cells_of_parquet_frames_and_datasets(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (3, 2))
    rows: dict[str, list[Any]] = {
        "image": [{"bytes": b"raw", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None],
        "id": [1, 2, 3],
        "tags": [["x"], [], None],
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "t.parquet")
    columns = Columns(fields=frozenset({"tags"}))
    raw, path, none = read_image_sources(tmp_path / "t.parquet", columns)
    assert raw == SourceItem({"id": "1", "fields": {"tags": ["x"]}}, [b"raw"])
    assert path == SourceItem({"id": "2", "fields": {"tags": []}}, [tmp_path / "b.png"])
    assert "row 3: the column 'image' is empty" in none.line["failure"]  # type: ignore[index]
    frame = pandas.DataFrame({"image": [picture, b"x", float("nan"), 3.5], "id": [1.5, 2, float("nan"), 4]})
    one, two, three, four = read_image_sources(frame)
    assert Image.open(io.BytesIO(one.files[0])).size == (3, 2)  # type: ignore[arg-type]
    assert (one.line, two.files) == ({"id": "1.5"}, [b"x"])
    assert three.line == {"failure": "the DataFrame, row 3: the column 'image' is empty"}
    assert "is 3.5, no image" in four.line["failure"]  # type: ignore[index]
    data = io.BytesIO()
    Image.new("RGB", (2, 2)).save(data, "JPEG")
    rows = {"picture": [{"bytes": data.getvalue(), "path": None}], "n": [1]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    for each in (dataset, dataset.to_iterable_dataset()):
        [item] = read_image_sources(each)
        assert item.files == [data.getvalue()], "the file as it is, not decoded and encoded again"
    with pytest.raises(BadSource, match=r"dataset\['train'\]"):
        read_image_sources(datasets.DatasetDict({"train": dataset}))


def test_pictures_in_memory_are_taken_as_they_come() -> None:
    taken = 0

    def pictures() -> Iterator[Any]:
        nonlocal taken
        for _ in range(1_000_000):
            taken += 1
            yield Image.new("RGB", (2, 2), (taken % 256, 0, 0))

    items = read_image_sources(pictures())
    assert [next(items).line for _ in range(3)] == [{}, {}, {}]
    assert taken == 3
    broken = Image.open(io.BytesIO(make_png()[:60]))
    [item] = read_image_sources(broken)
    assert "cannot be read" in item.line["failure"]  # type: ignore[index]


def make_png() -> bytes:
    data = io.BytesIO()
    Image.effect_noise((50, 50), 50).save(data, "PNG")
    return data.getvalue()


def test_images_of_a_tar_are_sent_in_stretches_of_it(tmp_path: Path) -> None:
    files = {
        "a.png": b"a" * 600,
        "a.json": b'{"q": "Why?", "tags": 3}',
        "gap.bin": bytes(3 * 2**20),
        "b.png": b"b" * 10,
    }
    (tmp_path / "x.tar").write_bytes(make_tar(files))
    columns = Columns(prompt="q", fields=frozenset({"tags", "name"}))
    found, objects = sent(read_image_sources(tmp_path / "x.tar", columns))
    assert [(line["id"], line.get("prompt"), line.get("fields")) for line in found] == [
        ("a.png", "Why?", {"tags": 3}),
        ("b.png", None, None),
    ]
    assert list(objects) == ["tars/000000000", "tars/000000001"], "what lies between is not sent"
    assert [bytes_of(line["image"], objects) for line in found] == [files["a.png"], files["b.png"]]


def test_a_stretch_ends_in_time_and_a_large_image_is_one_by_itself(tmp_path: Path) -> None:
    size = STRETCH_BYTES // 3
    region = [Region(tmp_path / "x.tar", number * size, size, 99) for number in range(5)]
    region.append(Region(tmp_path / "x.tar", 5 * size, 2 * STRETCH_BYTES, 99))
    found, objects = sent(iter([SourceItem({}, [each]) for each in region]))
    assert [each.length() for each in objects.values()] == [3 * size, 2 * size, 2 * STRETCH_BYTES]
    assert [line["image"]["offset"] for line in found] == [0, size, 2 * size, 0, size, 0]


def test_a_tar_that_became_another_while_it_was_sent_gives_zeros(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(make_tar({"a.png": b"abc"}))
    found, objects = sent(read_image_sources(tmp_path / "x.tar"))
    (tmp_path / "x.tar").write_bytes(make_tar({"b.png": b"x" * 10_000}))
    assert bytes_of(found[0]["image"], objects) == bytes(3)


def test_images_in_memory_share_objects_too() -> None:
    data = [bytes([number]) * 2**19 for number in range(20)] + [b"large" * 2**19]
    found, objects = sent(read_image_sources(data))
    assert [bytes_of(line["image"], objects) for line in found] == data
    assert [each.bytes_held for each in objects.values()] == [2**22, 2**22, 5 * 2**19, 2**21]


def test_sources_in_the_store_are_named_and_not_read() -> None:
    assert bucket_urls("s3://b/x-{1..2}.tar") == ["s3://b/x-1.tar", "s3://b/x-2.tar"]
    assert bucket_urls(["a.png"]) == bucket_urls(iter(["s3://b/"])) == []
    with pytest.raises(BadSource, match="beside other sources"):
        bucket_urls(["s3://b/", "a.png"])
    with pytest.raises(BadSource, match="beside other sources"):
        list(read_image_sources(iter(["s3://b/"])))
    assert name_sources(["a", Path("b"), b"x"]) == "a b bytes"


def test_prompts_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text,animal\nx,a cat,cat\ny,,dog\n")
    assert lines(read_prompt_sources([], tmp_path / "t.csv")) == [
        {"prompt": "a cat", "id": "x"},
        {"prompt": "", "id": "y"},
    ]
    drawn = lines(read_prompt_sources(["first"], tmp_path / "t.csv", template="{id}: a {animal}"))
    assert drawn == [{"prompt": "first"}, {"id": "x", "prompt": "x: a cat"}, {"id": "y", "prompt": "y: a dog"}]
    with pytest.raises(BadSource, match=r"names \{colour\}"):
        read_prompt_sources([], tmp_path / "t.csv", template="{colour}")
    with pytest.raises(BadSource, match="rows of a table"):
        read_prompt_sources(["a"], template="{colour}")
    [missing] = read_prompt_sources([], pandas.DataFrame({"animal": [None]}), template="a {animal}")
    assert "'animal' is empty" in missing.line["failure"]  # type: ignore[index]


OPTIONS = GenerateOptions()


def test_a_sweep_is_every_combination_with_ids_to_read() -> None:
    items = [SourceItem({"prompt": "a"}), SourceItem({"prompt": "b", "id": "bee", "options": {"steps": 5, "top_k": 1}})]
    found = lines(sweep_over(items, {"guidance": [3, 0.5], "seed": [1, 2], "steps": [9]}, OPTIONS))
    assert [line["id"] for line in found][:3] == [
        "0-guidance=3-seed=1-steps=9",
        "0-guidance=3-seed=2-steps=9",
        "0-guidance=0.5-seed=1-steps=9",
    ]
    assert found[-1] == {
        "prompt": "b",
        "id": "bee-guidance=0.5-seed=2-steps=9",
        "seed": 2,
        "options": {"steps": 9, "top_k": 1, "guidance": 0.5},
    }
    text = SourceItem("{broken")
    assert list(sweep_over([text], {"seed": [1, 2]}, OPTIONS)) == [text]


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"guidance": [1, 500]}, "0 to 100"),
        ({"seed": [-1]}, "options.seed"),
        ({"seed": ["x"]}, "not of its type"),
        ({"sed": [1]}, "no option 'sed'"),
        ({"seed": []}, "one or more values"),
        ({"seed": [1, 1]}, "differ"),
        ({"seed": range(200), "guidance": range(100)}, "20000 combinations"),
    ],
)
def test_a_sweep_that_cannot_be_is_told_at_once(sweep: Any, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        sweep_over([], sweep, OPTIONS)


def test_a_sweep_of_too_many_items_is_refused_before_anything_is_sent() -> None:
    endless = (SourceItem({"prompt": str(number)}) for number in range(10**9))
    with pytest.raises(BadSource, match="1000000 items"):
        for _ in sweep_over(endless, {"seed": range(5000)}, OPTIONS):
            pass
