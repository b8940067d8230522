"""Images out of larger objects: the right bytes, few requests, and an error for everybody who waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.artifacts.base import StoreUnavailable
from orchestrator.domain.image_refs import ImageRef
from workers.blocks import Blocks

DATA = bytes(range(256)) * 4


class Store:
    """One object; counts what it is asked for, and may be away."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.is_away = False
        self.may_answer = threading.Event()
        self.may_answer.set()

    def get_range(self, key: str, offset: int, num_bytes: int) -> bytes:
        self.asked.append((offset, num_bytes))
        assert self.may_answer.wait(10)
        if self.is_away:
            raise StoreUnavailable("away")
        return DATA[offset : offset + num_bytes]

    def get(self, key: str, *, max_bytes: int) -> bytes:
        return DATA[: max_bytes + 1]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def blocks(store: Store) -> Blocks:
    return Blocks(store, block_bytes=100, max_blocks=3)  # type: ignore[arg-type]


def read(blocks: Blocks, offset: int, num_bytes: int, max_bytes: int = 1000) -> bytes:
    return blocks.read(ImageRef("k", offset, num_bytes), max_bytes=max_bytes)


def test_neighbours_are_read_together(store: Store, blocks: Blocks) -> None:
    for offset in range(0, 300, 30):
        assert read(blocks, offset, 30) == DATA[offset : offset + 30]
    assert store.asked == [(0, 100), (100, 100), (200, 100)]


def test_limits(store: Store, blocks: Blocks) -> None:
    assert read(blocks, 50, 250) == DATA[50:300], "larger than a block: by itself"
    assert store.asked == [(50, 250)]
    assert len(read(blocks, 0, 90, max_bytes=20)) == 21
    assert len(read(blocks, 1000, 90)) == 24, "the object ends before"
    assert read(blocks, 5000, 10) == b""
    assert blocks.read(ImageRef("k"), max_bytes=7) == DATA[:8]


def test_only_the_last_blocks_are_kept(store: Store, blocks: Blocks) -> None:
    for offset in (0, 100, 200, 0, 300, 100, 0):
        read(blocks, offset, 10)
    assert [offset for offset, _ in store.asked] == [0, 100, 200, 300, 100]


def test_who_waits_for_a_block_gets_it_or_its_error_and_the_next_one_tries_again(store: Store, blocks: Blocks) -> None:
    for is_away in (True, False):
        store.is_away = is_away
        store.may_answer.clear()
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(read, blocks, offset, 10) for offset in (0, 10, 20, 30)]
            store.may_answer.set()
            for number, answer in enumerate(answers):
                if is_away:
                    assert isinstance(answer.exception(), StoreUnavailable)
                else:
                    assert answer.result() == DATA[10 * number : 10 * number + 10]
    assert 1 < len(store.asked) <= 5
