"""A user's own pictures and captions: what is accepted, what is refused and how, and in which order they come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from janus_core.errors import DataInvalid
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings, prepare
from janus_core.processing.tokenizer import Tokenizer
from janus_core.training.batches import IGNORED, MixedBatch, RowMaker
from janus_core.training.pairs import CaptionPairs, Pair, read_pairs
from janus_core.training.presets import Phase

IMAGES = ImageSettings(16, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, True)
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, each of its own grey."""
    for level, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (40 * level,) * 3).save(tmp_path / f"{name}.png")
    return tmp_path


def written(folder: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in lines)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    return folder / "data.jsonl"


def test_a_file_of_results_is_taken_as_it_is(folder: Path) -> None:
    data = written(
        folder,
        '{"index": 0, "id": "a.png", "caption": "…", "num_tokens": 24, "finish_reason": "length", "seed": 1, '
        '"model": "tiny-065a89", "revision": "sha256:1541536e4a82620b"}',
        {"index": 1, "id": "cut.jpg", "failure": {"code": "image_unreadable", "message": "no", "attempts": 1}},
        {"index": 2, "id": "b.png", "caption": " two\u2028lines, or one \u0085 \x0c ", "num_tokens": 3},
        {"index": 3, "id": "c.png", "caption": " "},
    )
    assert read_pairs(data, None) == [
        Pair(folder / "a.png", "…"),
        Pair(folder / "b.png", "two\u2028lines, or one"),
    ]


def test_pictures_may_lie_elsewhere_and_be_named_by_image(folder: Path) -> None:
    (folder / "below").mkdir()
    data = written(
        folder / "below",
        {"id": "a.png", "caption": "x"},
        "",
        {"id": "7", "image": "b.png", "caption": "y"},
        {"image": str(folder / "c.png"), "caption": "z"},
    )
    assert read_pairs(data, folder) == [Pair(folder / f"{name}.png", said) for name, said in zip("abc", "xyz")]  # noqa: B905


def test_a_byte_order_mark_does_no_harm(folder: Path) -> None:
    data = folder / "data.jsonl"
    data.write_bytes(b'\xef\xbb\xbf{"id": "a.png", "caption": "x"}\r\n{"id": "b.png", "caption": "y"}\r\n')
    assert [pair.caption for pair in read_pairs(data, None)] == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r'data.jsonl:2 is no line like \{"id": "a.jpg", "caption": "…"\}: Expecting'),
        ({"caption": "x"}, r"data.jsonl:2 is no line like .*: it has no 'id'"),
        ('["a.png", "x"]', r"data.jsonl:2 is no line like"),
        ("3", r"data.jsonl:2 is no line like"),
        ({"id": 3, "caption": "x"}, r"data.jsonl:2: the picture is 3; one file name is expected"),
        ({"image": ["a.png", "b.png"], "caption": "x"}, r'the picture is \["a.png", "b.png"\]; one file name'),
        ({"id": "a.png", "caption": f"see {chat.IMAGE}"}, r"data.jsonl:2: a caption cannot hold <image_placeholder>"),
        ({"id": "gone.png", "caption": "x"}, r"1 of 2 pictures are not there: \S+gone.png. Say where with --images."),
    ],
)
def test_what_is_wrong_with_a_line_is_told(folder: Path, line: object, told: str) -> None:
    with pytest.raises(DataInvalid, match=told):
        read_pairs(written(folder, {"id": "a.png", "caption": "x"}, line), None)


def test_of_many_absent_pictures_the_first_are_named(folder: Path) -> None:
    data = written(folder, *({"id": f"{n}.png", "caption": "x"} for n in range(9)))
    with pytest.raises(DataInvalid, match=r"9 of 9 pictures are not there: \S+0.png, .*4.png …. Say where"):
        read_pairs(data, None)


def test_a_file_without_captions_and_one_that_is_not_there_are_told(folder: Path) -> None:
    with pytest.raises(DataInvalid, match=r"data.jsonl has no line with a caption"):
        read_pairs(written(folder, {"id": "a.png", "text": "x"}), None)
    with pytest.raises(DataInvalid, match=r"none.jsonl cannot be read"):
        read_pairs(folder / "none.jsonl", None)
    (folder / "latin.jsonl").write_bytes('{"id": "a.png", "caption": "é"}'.encode("latin-1"))
    with pytest.raises(DataInvalid, match=r"latin.jsonl cannot be read"):
        read_pairs(folder / "latin.jsonl", None)


def stream(
    folder: Path, rows: RowMaker, batch_size: int = 5, seed: int = 0, max_tokens: int = 999, names: object = NAMES
) -> CaptionPairs:
    pairs = [Pair(folder / f"{name}.png", f"caption {name}") for name in names]  # type: ignore[attr-defined]
    return CaptionPairs(pairs, "What?", rows, IMAGES, seed, Phase("sft", 9, batch_size, 1e-3, 0), max_tokens)


def captions(batch: MixedBatch, tokenizer: Tokenizer) -> list[str]:
    assert batch.understanding is not None
    learnt = [[id for id in row if id != IGNORED] for row in batch.understanding.targets.tolist()]
    return [tokenizer.decode(ids).strip().removeprefix("caption ") for ids in learnt]


def test_every_pair_comes_once_an_epoch_and_each_epoch_in_another_order(
    folder: Path, rows: RowMaker, tokenizer: Tokenizer
) -> None:
    epochs = [captions(stream(folder, rows).batch(step, 0, 1), tokenizer) for step in range(6)]
    assert all(sorted(epoch) == list(NAMES) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3
    other = captions(stream(folder, rows, seed=1).batch(0, 0, 1), tokenizer)
    assert other != epochs[0]
    in_twos = [captions(stream(folder, rows, batch_size=2).batch(step, 0, 1), tokenizer) for step in range(5)]
    assert [name for batch in in_twos for name in batch] == epochs[0] + epochs[1]


def test_a_picture_stands_beside_its_caption(folder: Path, rows: RowMaker, tokenizer: Tokenizer) -> None:
    batch = stream(folder, rows).batch(0, 0, 1)
    assert batch.understanding is not None
    for name, pixels in zip(captions(batch, tokenizer), batch.understanding.pixels, strict=True):
        with Image.open(folder / f"{name}.png") as picture:
            assert np.array_equal(pixels.numpy(), prepare(picture, IMAGES))


def test_several_processes_share_a_batch(folder: Path, rows: RowMaker, tokenizer: Tokenizer) -> None:
    whole = captions(stream(folder, rows).batch(1, 0, 1), tokenizer)
    shares = [captions(stream(folder, rows).batch(1, process, 2), tokenizer) for process in range(2)]
    assert shares == [whole[0::2], whole[1::2]]


def test_the_next_pair_stands_in_for_a_picture_that_cannot_be_read_which_is_told_once(
    folder: Path, rows: RowMaker, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    order = captions(stream(folder, rows).batch(0, 0, 1), tokenizer)
    (folder / f"{order[1]}.png").write_bytes(b"no picture")
    broken = stream(folder, rows)
    for _ in range(2):
        assert captions(broken.batch(0, 0, 1), tokenizer) == [order[0], order[2], *order[2:]]
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert told.startswith(f"left out: {folder / order[1]}.png cannot be read: cannot identify image file")


def test_without_a_single_picture_that_can_be_read_it_ends(folder: Path, rows: RowMaker) -> None:
    for name in NAMES:
        (folder / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(DataInvalid, match="none of the 5 pictures can be read"):
        stream(folder, rows).batch(0, 0, 1)


def test_a_caption_that_is_too_long_is_cut(folder: Path, rows: RowMaker) -> None:
    whole, cut = (stream(folder, rows, max_tokens=most).batch(0, 0, 1).understanding for most in (999, 20))
    assert whole is not None
    assert cut is not None
    assert cut.ids.shape == (5, 20)
    assert torch.equal(cut.ids, whole.ids[:, :20])
    assert torch.equal(cut.targets[:, :19], whole.targets[:, :19])
    assert (cut.targets[:, 19] == IGNORED).all()
