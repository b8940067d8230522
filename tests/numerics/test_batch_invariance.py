"""The same requests alone, in one batch and in random batches: the same tokens, codes and pixels to a level."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
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
from janus_core.engine.prompts import PromptBook
from janus_core.engine.rows import CaptionRow, ImageRow, Row

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


def test_five_hundred_requests_at_random_times_give_what_each_gives_alone(engine: Engine) -> None:
    """Captions and drawings of three jobs in one pool; many are given up at a random time."""
    dice = random.Random(5)
    usual = [*caption_requests(), *image_requests()]
    unlike = [replace(request, seed=seed) for seed in range(3) for request in usual]
    requests = [unlike[number % len(unlike)] for number in range(500)]
    rows: list[Row] = []
    for number, request in enumerate(requests):
        row = engine.prepare(request, job=str(number % 3))
        assert isinstance(row, Row)
        rows.append(row)
    order, begun = dice.sample(range(len(rows)), len(rows)), 0
    while begun < len(rows) or not engine.is_idle:
        for number in order[begun : begun + dice.randrange(4)]:
            engine.start(rows[number])
            begun += 1
        if dice.random() < 0.3:
            rows[dice.choice(order[max(0, begun - 30) : begun + 30])].is_cancelled = True
        engine.turn()
    given_up = [row for row in rows if isinstance(row.answer, Rejected)]
    assert 50 < len(given_up) < 250
    assert all(row.is_cancelled for row in given_up)
    alone: dict[int, object] = {}
    for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
        if row in given_up:
            continue
        if number % len(unlike) not in alone:
            alone[number % len(unlike)] = answer_alone(engine, request)
        answer = row.answer.codes if isinstance(row.answer, GeneratedImage) else row.answer
        assert answer == alone[number % len(unlike)]


def answer_alone(engine: Engine, request: CaptionRequest | GenerateRequest) -> object:
    """The caption, or the codes of the image."""
    if isinstance(request, CaptionRequest):
        return engine.caption([request])[0]
    return codes(engine.generate([request]))[0]


class Breaking:
    """An engine whose model raises while `wrong` says so of the pixels it is given; `raised` counts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception] = RuntimeError) -> None:
        monkeypatch.setattr(lane, "prefill_tokens", lambda _: 4096)
        self.engine = load_engine(folder, device="cpu", dtype="float32")
        self.wrong: Callable[[torch.Tensor], bool] = lambda _: False
        self.raised = 0
        embed_images = self.engine.model.embed_images

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            if self.wrong(pixels):
                self.raised += 1
                raise error("no kernel image is available")
            return embed_images(pixels)

        monkeypatch.setattr(self.engine.model, "embed_images", embed)

    def start(self, requests: Sequence[CaptionRequest | GenerateRequest]) -> list[Row]:
        rows = [self.engine.prepare(request) for request in requests]
        started = [row for row in rows if isinstance(row, Row)]
        for row in started:
            self.engine.start(row)
        return started

    def run(self) -> list[Row]:
        """Turns to the end, whatever they raise; what left, in that order."""
        left: list[Row] = []
        while not self.engine.is_idle:
            with suppress(RuntimeError):
                left += self.engine.turn()
        return left


def test_who_breaks_a_batch_is_found_and_the_others_are_answered(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = caption_requests()[:6]
    breaking = Breaking(folder, monkeypatch)
    rows = breaking.start(captions)
    assert isinstance(rows[2], CaptionRow)
    bad = rows[2].pixels[0]
    breaking.wrong = lambda pixels: any(torch.equal(image, bad) for image in pixels)
    left = breaking.run()
    assert sorted(map(id, left)) == sorted(map(id, rows))
    assert [str(row.error) for row in rows] == ["None", "None", "no kernel image is available", *["None"] * 3]
    want = engine.caption(captions)
    assert [row.answer for row in rows if row is not rows[2]] == [want[n] for n in (0, 1, 3, 4, 5)]
    assert breaking.raised == 3, "six together, three, and one"
    with pytest.raises(RuntimeError, match="no kernel"):
        breaking.engine.caption([captions[0], captions[2]])
    assert breaking.engine.is_idle
    assert breaking.engine.caption(captions[:1]) == want[:1]


def test_what_left_before_a_turn_raised_is_not_lost(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking = Breaking(folder, monkeypatch)
    captions, drawings = caption_requests()[:2], image_requests()[:3]
    one, other = breaking.start(captions)
    images = breaking.start(drawings)
    breaking.engine.turn()
    one.is_cancelled = True
    late = breaking.start(caption_requests()[2:3])
    breaking.wrong = lambda _: breaking.raised == 0
    with pytest.raises(RuntimeError, match="no kernel"):
        breaking.engine.turn()
    assert not breaking.engine.is_idle
    left = breaking.run()
    assert sorted(map(id, left)) == sorted(map(id, [one, other, *images, *late]))
    assert isinstance(one.answer, Rejected)
    assert [row.answer for row in (other, *late)] == engine.caption(caption_requests()[1:3])
    assert codes([row.answer for row in images]) == codes(engine.generate(drawings))  # type: ignore[misc]


def test_an_answer_that_ended_in_a_turn_that_raised_is_made_again_in_full(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caption of one token ends as it begins; the drawing that begins beside it raises."""
    short, drawing = CaptionRequest(pictures(1)[0], "?", max_new_tokens=1), image_requests()[1]
    breaking = load_engine(folder, device="cpu", dtype="float32")
    look_up, raised = PromptBook.look_up, []

    def once(self: PromptBook, prompts: Sequence[Sequence[int]]) -> Any:
        if not raised:
            raised.append(True)
            raise torch.OutOfMemoryError("of a small device")
        return look_up(self, prompts)

    monkeypatch.setattr(PromptBook, "look_up", once)
    rows = [breaking.prepare(request) for request in (short, drawing)]
    for row in rows:
        assert isinstance(row, Row)
        breaking.start(row)
    while not breaking.is_idle:
        breaking.turn()
    assert raised
    assert [row.answer for row in rows if isinstance(row, CaptionRow)] == engine.caption([short])


def test_a_request_too_large_for_any_pool_fails_alone_and_leaves_the_pool_as_it_was(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = caption_requests()[:6]
    breaking = Breaking(folder, monkeypatch, torch.OutOfMemoryError)
    rows = breaking.start(captions)
    assert isinstance(rows[2], CaptionRow)
    bad = rows[2].pixels[0]
    breaking.wrong = lambda pixels: any(torch.equal(image, bad) for image in pixels)
    breaking.run()
    assert [type(row.error) for row in rows if row.error] == [torch.OutOfMemoryError]
    want = engine.caption(captions)
    assert [row.answer for row in rows if row is not rows[2]] == [want[n] for n in (0, 1, 3, 4, 5)]
    made: list[int] = []

    class Watched(KVCache):
        def __init__(self, config: LlamaConfig, num_slots: int, *rest: Any) -> None:
            made.append(num_slots)
            super().__init__(config, num_slots, *rest)

    monkeypatch.setattr(lane, "KVCache", Watched)
    breaking.engine.caption(captions[:1])
    assert made == [16]


@pytest.mark.parametrize("steps", [2, 7])
def test_nor_on_how_often_the_host_looks(folder: Path, engine: Engine, steps: int) -> None:
    """An accelerator takes several steps between two looks."""
    seldom = load_engine(folder, device="cpu", dtype="float32")
    seldom._reader._steps_between_looks = steps
    assert seldom.caption(caption_requests()) == engine.caption(caption_requests())
    assert codes(seldom.generate(image_requests()[:6])) == codes(engine.generate(image_requests()[:6]))


def test_prompts_that_are_kept_do_not_count_against_what_may_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "prefill_tokens", lambda _: 1)
    engine = load_engine(folder, device="cpu", dtype="float32")
    prompts = ["a cat", "a dog", *["a cat"] * 5]
    for n, prompt in enumerate(prompts):
        row = engine.prepare_image(GenerateRequest(prompt, seed=n))
        assert isinstance(row, ImageRow)
        engine.start(row)
    running = []
    for _ in range(3):
        engine.turn()
        running.append(len(engine._reader.scheduler.running))
    assert running == [1, 2, 7]


def test_the_images_of_a_prompt_share_it_over_turns_until_it_is_forgotten(engine: Engine) -> None:
    asked: list[int] = []
    hook = engine.model.llama.register_forward_hook(lambda _, given, __: asked.append(given[0].shape[1]))
    rows = [engine.prepare_image(GenerateRequest("a cat", seed=seed)) for seed in range(2)]
    first, second = (row for row in rows if isinstance(row, ImageRow))
    try:
        engine.start(first)
        engine.turn()
        engine.start(second)
        while not engine.is_idle:
            engine.turn()
    finally:
        hook.remove()
    assert asked.count(len(first.ids)) == 1, "both halves of both images"
    assert set(asked) == {1, len(first.ids)}
    book = PromptBook(engine.model, pad_id=0, prefill_tokens=64)
    (one,), (again,) = book.look_up([[5, 6, 7]]), book.look_up([[5, 6, 7]])
    assert one is again
    book.forget()
    assert book.look_up([[5, 6, 7]])[0] is not one
