"""Quotas: what may begin, whatever the sizes of shards; and numbers of bytes as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.quotas import Load, Quota, Rooms, Use, check_stored, day_of, next_day, why_not
from orchestrator.domain.sizes import format_size, parse_size

limits = st.none() | st.integers(1, 300)
loads = st.integers(1, 100).flatmap(lambda n: st.builds(Load, st.integers(0, n), st.just(n)))


def test_what_is_unset_has_no_limit() -> None:
    assert why_not(Quota(), Use(10**9, 10**9), Load(10**6, 10**6)) is None
    assert not Quota(stored_bytes=1).limits_turns


def test_why_a_shard_waits_says_what_is_used_and_when_it_goes_on() -> None:
    used_up = why_not(Quota(per_day=100), Use(0, 100), Load(1, 1))
    assert used_up == "the team's quota of 100 items a day is used; it goes on at 00:00 UTC"
    too_large = why_not(Quota(per_day=100), Use(0, 60), Load(64, 64))
    assert too_large is not None
    assert "has no room for another shard (60 are used)" in too_large
    in_flight = why_not(Quota(in_flight=100), Use(90, 0), Load(64, 64))
    assert in_flight == "the team's quota of 100 items in flight is used; it goes on as they are finished"


@given(limits, limits, st.lists(loads, max_size=30), st.integers(0, 400))
def test_no_limit_is_passed_but_by_a_single_shard(
    in_flight: int | None, per_day: int | None, shards: list[Load], counted: int
) -> None:
    rooms = Rooms({"t": Quota(in_flight, per_day)}, {"t": Use(0, counted)})
    begun = [shard for shard in shards if rooms.take("t", shard)]
    if in_flight is not None and len([shard for shard in begun if shard.unfinished]) > 1:
        assert sum(shard.unfinished for shard in begun) <= in_flight
    if per_day is not None and begun and (counted or len(begun) > 1):
        assert counted + sum(shard.countable for shard in begun) <= per_day
    assert begun == shards[: len(begun)], "none overtakes one that has no room"


@given(limits, limits, loads)
def test_a_team_that_has_nothing_gets_a_shard_however_large(
    in_flight: int | None, per_day: int | None, shard: Load
) -> None:
    assert Rooms({"t": Quota(in_flight, per_day)}, {}).take("t", shard)


def test_teams_without_a_quota_may_anything() -> None:
    rooms = Rooms({"a": Quota(in_flight=1)}, {"a": Use(1, 1)})
    assert [rooms.take(team, Load(5, 5)) for team in ("a", "b", "b")] == [False, True, True]


def test_a_full_store_says_what_is_used_and_what_to_do() -> None:
    check_stored(Quota(stored_bytes=100), 99, None)
    with pytest.raises(
        InvalidRequest, match=r"keeps 1500 bytes \(1\.50 kB.*quota is 100 bytes.*janus jobs delete"
    ) as found:
        check_stored(Quota(stored_bytes=100), 1500, datetime(2026, 11, 27, tzinfo=UTC))
    assert found.value.code == "quota_exceeded"


def test_days_are_those_of_utc() -> None:
    late = datetime.fromisoformat("2026-11-27T23:30-05:00")
    assert day_of(late) == date(2026, 11, 28)
    assert next_day(late) == datetime(2026, 11, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1048576", 2**20), ("500GB", 500 * 10**9), ("1.5 TiB", 3 * 2**39), ("2k", 2000), ("10 mb", 10**7), ("7B", 7)],
)
def test_sizes_are_read(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 QB", "1e9", "ten", "1.2.3", "9" * 30])
def test_what_is_no_size_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidRequest, match="500GB"):
        parse_size(text)


@given(st.integers(0, 10**18))
def test_sizes_are_told_with_three_digits(num_bytes: int) -> None:
    text = format_size(num_bytes)
    assert abs(parse_size(text) - num_bytes) <= num_bytes * 0.006
    assert len(text) <= 8
