"""Ids are found again however they are kept, and others never."""

from __future__ import annotations

from orchestrator.domain import used_ids
from orchestrator.domain.used_ids import UsedIds


def test_every_id_is_found_again_after_buckets_were_split() -> None:
    used, names = UsedIds(), [f"photos/{number:08d}.jpg" for number in range(20_000)]
    assert all(used.add(name, index) for index, name in enumerate(names))
    assert not any(used.add(name, index) for index, name in enumerate(names, len(names)))
    assert used.add("photos/other.jpg", 40_000)


def test_hashes_that_agree_in_64_bits_are_told_apart_by_the_rest() -> None:
    class Same(str):
        """Text whose hash is every other's."""

        def __hash__(self) -> int:
            return 7

    used = UsedIds()
    assert all(used.add(Same(name), index) for index, name in enumerate(("a", "b", "c")))
    assert not used.add(Same("b"), 3)


def test_an_id_that_is_the_items_own_index_is_one_bit_and_found_again() -> None:
    used = UsedIds()
    assert all(used.add(str(index), index) for index in range(0, 1000, 2))
    assert not used.add("998", 1000)
    assert used.add("999", 1001)  # item 999 had another id
    assert not used.add("999", 1002)
    assert used.add("0998", 1003)
    assert used.add("٣", 1004)  # a digit, and not the id of item 3
    assert not used.add("٣", 1005)


def test_an_index_that_an_earlier_item_took_as_its_id_is_used() -> None:
    used = UsedIds()
    assert used.add("5", 0)
    assert used.add("1", 1)
    assert not used.add("5", 5)


def test_an_id_takes_12_bytes_of_few_buckets() -> None:
    used = UsedIds()
    num_ids = 50_000
    for index in range(num_ids):
        used.add(f"name {index}", index)
    kept = sum(each.itemsize * each.buffer_info()[1] for each in (*used._highs, *used._lows))
    assert kept == 12 * num_ids
    assert len(used._highs) * used_ids.BUCKET_IDS >= num_ids > len(used._highs) * used_ids.BUCKET_IDS // 4
