"""The same requests alone, in one batch and in random batches: the same tokens, codes and pixels to a level."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, Rejected, load_engine
from janus_core.checkpoints.random import write_random_checkpoint
from janus_core.configs import LlamaConfig
from janus_core.engine import lane
from janus_core.engine.cache import KVCache
from janus_core.engine.rows import Row

NUM_REQUESTS = 24
Request = TypeVar("Request")
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny", seed=1)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load_engine(folder, device="cpu", dtype="float32")


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(8, 200, (count, 2))
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in sizes]


def caption_requests() -> list[CaptionRequest]:
    """Greedy and sampled, of one and two images, short and long prompts and answers, all mixed."""
    dice, images = random.Random(0), pictures(NUM_REQUESTS + 1)
    requests = []
    for number in range(NUM_REQUESTS):
        two = number % 5 == 0
        words = " ".join(["and"] * dice.randrange(1, 30))
        requests.append(
            CaptionRequest(
                image=[images[number], images[number + 1]] if two else images[number],
                prompt=f"<image_placeholder> or <image_placeholder> {words}" if two else words,
                max_new_tokens=dice.randrange(1, 28),
                temperature=0.0 if number % 3 == 0 else dice.uniform(0.3, 1.5),
                top_p=dice.choice((1.0, 0.9)),
                top_k=dice.choice((0, 0, 20)),
                seed=number,
            )
        )
    return requests


def image_requests() -> list[GenerateRequest]:
    dice = random.Random(1)
    return [
        GenerateRequest(
            prompt="a cat " * dice.randrange(1, 12),
            seed=number,
            guidance=dice.choice((1.0, 2.5, 5.0)),
            temperature=0.0 if number % 4 == 0 else dice.uniform(0.5, 1.5),
            top_p=dice.choice((1.0, 0.9)),
            top_k=dice.choice((0, 0, 50)),
        )
        for number in range(NUM_REQUESTS)
    ]


def in_batches(
    run: Callable[[Sequence[Request]], list[Result]],
    requests: Sequence[Request],
    order: Sequence[int],
    sizes: Sequence[int],
) -> list[Result]:
    """Run requests in another order and in calls of these sizes; results in the order of the requests."""
    results: dict[int, Result] = {}
    start = 0
    for size in sizes:
        indices = order[start : start + size]
        results |= dict(zip(indices, run([requests[index] for index in indices]), strict=True))
        start += size
    return [results[index] for index in range(len(requests))]


def random_batches(seed: int) -> tuple[list[int], list[int]]:
    dice = random.Random(seed)
    order = list(range(NUM_REQUESTS))
    dice.shuffle(order)
    sizes: list[int] = []
    while sum(sizes) < NUM_REQUESTS:
        sizes.append(min(dice.randrange(1, 10), NUM_REQUESTS - sum(sizes)))
    return order, sizes


def codes(results: Sequence[GeneratedImage | Rejected]) -> list[tuple[int, ...] | None]:
    assert all(isinstance(result, GeneratedImage) for result in results), results
    return [result.codes for result in results if isinstance(result, GeneratedImage)]


def test_captions_do_not_depend_on_their_batch(engine: Engine) -> None:
    requests = caption_requests()
    together = engine.caption(requests)
    assert all(isinstance(result, Caption) for result in together)
    assert len({result.token_ids for result in together if isinstance(result, Caption)}) > NUM_REQUESTS // 2
    assert {result.finish_reason for result in together if isinstance(result, Caption)} == {"stop", "length"}
    assert in_batches(engine.caption, requests, range(NUM_REQUESTS), [1] * NUM_REQUESTS) == together
    for seed in range(3):
        assert in_batches(engine.caption, requests, *random_batches(seed)) == together


def test_images_do_not_depend_on_their_batch(engine: Engine) -> None:
    requests = image_requests()
    together = engine.generate(requests)
    assert len(set(codes(together))) == NUM_REQUESTS
    alone = in_batches(engine.generate, requests, range(NUM_REQUESTS), [1] * NUM_REQUESTS)
    assert codes(alone) == codes(together)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, GeneratedImage)
        assert isinstance(other, GeneratedImage)
        levels = np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int)
        assert np.abs(levels).max() <= 1
        assert (levels != 0).mean() < 1e-3
    for seed in range(3):
        assert codes(in_batches(engine.generate, requests, *random_batches(seed))) == codes(together)


@pytest.mark.parametrize("max_rows", [1, 2, 5])
def test_nor_on_how_many_rows_fit(folder: Path, engine: Engine, max_rows: int) -> None:
    narrow = load_engine(folder, device="cpu", dtype="float32", max_rows=max_rows)
    assert narrow.caption(caption_requests()) == engine.caption(caption_requests())
    assert codes(narrow.generate(image_requests()[:6])) == codes(engine.generate(image_requests()[:6]))


def test_seeds_matter_when_sampling_and_not_when_greedy(engine: Engine) -> None:
    picture = pictures(1)[0]
    sampled = [CaptionRequest(picture, "x", 16, temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    one, two, again = engine.caption(sampled)
    assert one == again != two
    greedy = [CaptionRequest(picture, "x", 16, seed=seed) for seed in (1, 2)]
    assert len(set(engine.caption(greedy))) == 1


def test_cancelled_rows_leave_and_the_others_are_as_before(engine: Engine) -> None:
    requests, drawings = caption_requests()[:8], image_requests()[:8]
    asked: dict[int, int] = dict.fromkeys(range(8), 0)

    def is_cancelled(index: int) -> bool:
        asked[index] += 1
        return (index in (1, 6) and asked[index] > 4) or index == 3

    before = engine.caption(requests)
    after = engine.caption(requests, is_cancelled=is_cancelled)
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        if isinstance(other, Rejected):
            assert (other.code, index in (1, 3, 6)) == ("cancelled", True)
        else:
            assert one == other
    assert isinstance(after[3], Rejected)
    asked = dict.fromkeys(range(8), 0)
    images, fewer = engine.generate(drawings), engine.generate(drawings, is_cancelled=is_cancelled)
    assert [index for index, result in enumerate(fewer) if isinstance(result, Rejected)] == [1, 3, 6]
    kept = [index for index in range(8) if index not in (1, 3, 6)]
    assert codes([fewer[index] for index in kept]) == codes([images[index] for index in kept])
    everything = engine.generate(drawings, is_cancelled=lambda _: True) + engine.caption(
        requests, is_cancelled=lambda _: True
    )
    assert all(isinstance(result, Rejected) and result.code == "cancelled" for result in everything)


def test_what_cannot_be_served_is_rejected_in_its_place(engine: Engine) -> None:
    picture = pictures(1)[0]
    unreadable = Image.frombytes("RGB", (4, 4), bytes(48))
    unreadable.close()
    asked: dict[str, CaptionRequest] = {
        "prompt_empty": CaptionRequest(picture, "  "),
        "prompt_too_long": CaptionRequest(picture, "x" * 5000),
        "image_count_mismatch": CaptionRequest([picture, picture], "<image_placeholder>?"),
        "image_unreadable": CaptionRequest(unreadable, "?"),
        "prompt_not_unicode": CaptionRequest(picture, "\ud800"),
        "option_invalid": CaptionRequest(picture, "?", temperature=-1.0),
    }
    fine = CaptionRequest(picture, "Describe.", max_new_tokens=3)
    results = engine.caption([fine, *asked.values(), fine])
    nothing: Any = None
    assert getattr(engine.caption([CaptionRequest(nothing, "?")])[0], "code", "") == "image_unreadable"
    assert results[0] == results[-1] == engine.caption([fine])[0]
    assert [result.code for result in results if isinstance(result, Rejected)] == list(asked)
    drawings: dict[str, GenerateRequest] = {
        "prompt_empty": GenerateRequest(""),
        "prompt_too_long": GenerateRequest("x" * 5000),
        "prompt_has_image_mark": GenerateRequest("like <image_placeholder>"),
        "option_invalid": GenerateRequest("x", guidance=float("nan")),
        "noise_unsupported": GenerateRequest("x", noise=[0.0]),
    }
    images = engine.generate([*drawings.values(), GenerateRequest("x", steps=30)])
    assert [result.code for result in images if isinstance(result, Rejected)] == list(drawings)
    assert isinstance(images[-1], GeneratedImage)
    assert engine.caption([]) == engine.generate([]) == []


def test_an_answer_ends_where_the_context_does(engine: Engine) -> None:
    """4096 tokens, prompt and answer together; the prompt leaves room for 5."""
    picture = pictures(1)[0]
    row = engine.prepare_caption(CaptionRequest(picture, "x" * 3000, temperature=2.0))
    assert not isinstance(row, Rejected)
    longest = "x" * (3000 + 4096 - len(row.ids) - 4)
    longer = engine.prepare_caption(CaptionRequest(picture, longest, max_new_tokens=50))
    assert not isinstance(longer, Rejected)
    assert (len(longer.ids), longer.max_new_tokens) == (4092, 5)
    result = engine.caption([CaptionRequest(picture, longest, max_new_tokens=50, temperature=1.0, seed=2)])[0]
    assert isinstance(result, Caption)
    assert len(result.token_ids) <= 5


def test_running_out_of_memory_shrinks_the_batch(folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    captions, drawings = caption_requests()[:9], image_requests()[:5]
    together, images = engine.caption(captions), engine.generate(drawings)
    asked: list[int] = []

    class SmallCache(KVCache):
        most = 4

        def __init__(self, config: LlamaConfig, num_slots: int, *rest: Any) -> None:
            asked.append(num_slots)
            if num_slots > self.most:
                raise torch.OutOfMemoryError("of a small device")
            super().__init__(config, num_slots, *rest)

    monkeypatch.setattr(lane, "KVCache", SmallCache)
    small = load_engine(folder, device="cpu", dtype="float32")
    assert small.caption(captions) == together
    assert asked == [16, 8, 4]
    assert codes(small.generate(drawings)) == codes(images)
    SmallCache.most = 0
    for ask in (lambda tiny: tiny.caption(captions), lambda tiny: tiny.generate(drawings)):
        with pytest.raises(torch.OutOfMemoryError):
            ask(load_engine(folder, device="cpu", dtype="float32"))


def test_what_comes_later_joins_what_runs_and_what_is_cancelled_leaves(engine: Engine) -> None:
    """Captions and drawings of three jobs at random times, in one pool; a third are given up at a random time."""
    dice = random.Random(5)
    requests = [*caption_requests(), *image_requests()]
    alone = [*engine.caption(caption_requests()), *engine.generate(image_requests())]
    rows: list[Row] = []
    for number, request in enumerate(requests):
        prepare = engine.prepare_caption if isinstance(request, CaptionRequest) else engine.prepare_image
        row = prepare(request, job=str(number % 3))  # type: ignore[arg-type]
        assert isinstance(row, Row)
        rows.append(row)
    order, begun = dice.sample(rows, len(rows)), 0
    while begun < len(rows) or not engine.is_idle:
        for row in order[begun : begun + dice.randrange(4)]:
            engine.start(row)
            begun += 1
        if dice.random() < 0.3:
            dice.choice(rows).is_cancelled = True
        engine.turn()
    given_up = [row for row in rows if isinstance(row.answer, Rejected)]
    assert 3 < len(given_up) < len(rows) - 10
    assert all(row.is_cancelled for row in given_up)
    for row, want in zip(rows, alone, strict=True):
        if row in given_up:
            continue
        assert type(row.answer) is type(want)
        if isinstance(want, GeneratedImage):
            assert isinstance(row.answer, GeneratedImage)
            assert row.answer.codes == want.codes
        else:
            assert row.answer == want


def test_who_breaks_a_batch_is_found_and_the_others_are_answered(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = caption_requests()[:6]
    breaking = load_engine(folder, device="cpu", dtype="float32")
    rows = [breaking.prepare_caption(request) for request in captions]
    embed_images = breaking.model.embed_images

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        if any(torch.equal(image, rows[2].pixels[0]) for image in pixels):
            raise RuntimeError("no kernel image is available")
        return embed_images(pixels)

    monkeypatch.setattr(breaking.model, "embed_images", embed)
    with pytest.raises(RuntimeError, match="no kernel"):
        breaking.caption([captions[0], captions[2]])
    assert breaking.is_idle
    for row in rows:
        breaking.start(row)
    with pytest.raises(RuntimeError, match="no kernel"):
        breaking.turn()
    while not breaking.is_idle:
        breaking.turn()
    assert [str(row.error) for row in rows if row.error] == ["no kernel image is available"]
    assert rows[2].error is not None
    want = engine.caption(captions)
    assert [row.answer for row in rows if row is not rows[2]] == [want[n] for n in (0, 1, 3, 4, 5)]
