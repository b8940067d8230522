"""Cutting, skipping and halving."""

from __future__ import annotations

from orchestrator.domain.items import Item
from orchestrator.domain.retries import Verdict, after_expiry
from orchestrator.domain.shards import Part, finished_indexes, middle_of, plan_shards, runs_of


def part(results: list[int], failures: list[int]) -> Part:
    return Part("k", "d", 1, runs_of(results), runs_of(failures))


def test_shards_are_consecutive_and_the_last_is_shorter() -> None:
    planned = list(plan_shards((Item(index, str(index)) for index in range(7)), 3))
    assert [[item.index for item in shard] for shard in planned] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(plan_shards([], 3)) == []


def test_runs() -> None:
    assert runs_of([9, 3, 5, 4]) == ((3, 6), (9, 10))
    assert runs_of([]) == ()


def test_part_survives_its_json_and_knows_what_it_holds() -> None:
    one = part([0, 1, 2, 7], [3])
    assert Part.from_json(one.as_json()) == one
    assert (one.num_results, one.num_failures) == (4, 1)
    assert finished_indexes([one, part([5], [])]) == {0, 1, 2, 3, 5, 7}


def test_clipped_parts_of_both_halves_make_the_whole() -> None:
    whole = part([0, 1, 2, 7], [3, 4])
    left, right = whole.clipped(0, 4), whole.clipped(4, 8)
    assert finished_indexes([left]) == {0, 1, 2, 3}
    assert finished_indexes([right]) == {4, 7}
    assert left.num_failures + right.num_failures == whole.num_failures


def test_halving_splits_the_unfinished_items_evenly() -> None:
    assert middle_of([10, 11, 12, 13]) == 12
    assert middle_of([3, 90]) == 90


def test_verdicts() -> None:
    assert after_expiry(crashes=1, max_crashes=3, unfinished=64) is Verdict.retry
    assert after_expiry(crashes=3, max_crashes=3, unfinished=64) is Verdict.halve
    assert after_expiry(crashes=3, max_crashes=3, unfinished=1) is Verdict.give_up
    assert after_expiry(crashes=9, max_crashes=3, unfinished=0) is Verdict.retry
