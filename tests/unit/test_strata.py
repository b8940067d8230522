"""A sample of a stream: one of each stretch, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.strata import draw_indexes, pick

totals, samples, seeds = st.integers(0, 5000), st.integers(1, 300), st.integers(0, 2**63 - 1)


@given(totals, samples, seeds)
def test_one_of_each_stratum_ascending(total: int, sample: int, seed: int) -> None:
    drawn = list(draw_indexes(total, sample, seed))
    strata = min(total, sample)
    assert len(drawn) == strata
    assert all(k * total // strata <= index < (k + 1) * total // strata for k, index in enumerate(drawn))
    assert drawn == sorted(set(drawn))
    assert drawn == list(draw_indexes(total, sample, seed))


@given(totals, seeds)
def test_where_there_are_no_more_it_takes_all(total: int, seed: int) -> None:
    assert list(draw_indexes(total, total + 3, seed)) == list(range(total))


def test_another_seed_draws_others_and_a_pinned_one_these() -> None:
    assert list(draw_indexes(1000, 5, 0)) != list(draw_indexes(1000, 5, 1))
    assert list(draw_indexes(1000, 5, 0)) == [148, 340, 495, 708, 987], "samples that people made would be others"


def test_every_place_of_a_stratum_is_drawn_about_as_often() -> None:
    counts = [0] * 10
    for seed in range(5000):
        counts[next(draw_indexes(100, 10, seed))] += 1
    assert 400 < min(counts) <= max(counts) < 600


@given(totals, samples, seeds)
def test_what_is_picked_stands_at_the_indexes(total: int, sample: int, seed: int) -> None:
    assert list(pick(range(total), draw_indexes(total, sample, seed))) == list(draw_indexes(total, sample, seed))


class Endless:
    """Whole numbers, and how many of them were asked for."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.read += 1
            yield self.read - 1


def test_nothing_is_read_behind_the_last_and_nothing_is_held() -> None:
    stream = Endless()
    first = list(islice(pick(stream, draw_indexes(10**9, 10**8, 3)), 3))
    assert stream.read == first[-1] + 1 <= 30
    for indexes, read in (([2, 4], 5), ([], 0)):
        stream = Endless()
        assert list(pick(stream, iter(indexes))) == indexes
        assert stream.read == read
