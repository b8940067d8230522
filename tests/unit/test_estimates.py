"""Estimates: ends come later with more work, windows are walked through by the clock of their place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.estimates import (
    Ahead,
    Measured,
    after_open_seconds,
    open_seconds,
    seconds_of,
    turn_of,
    work_of_item,
)
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions
from orchestrator.domain.windows import Window, parse_window
from tests.unit.test_windows import berlin, moments, windows

AT = datetime(2026, 11, 27, tzinfo=UTC)
positive = st.floats(0.01, 1e6)
aheads = st.builds(Ahead, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.001, 1))


def measured(work_per_second: float = 2.0) -> Measured:
    return Measured(100, 100 * work_per_second, 100.0, 3, AT, AT)


def test_work_is_counted_by_images_and_steps() -> None:
    usual = work_of_item(GenerateOptions())
    assert work_of_item(GenerateOptions(images=4)) == 4 * usual
    assert work_of_item(GenerateOptions(steps=60)) == 2 * usual
    assert work_of_item(GenerateOptions(solver="heun")) == 2 * usual
    assert work_of_item(CaptionOptions()) == work_of_item(CaptionOptions(max_tokens=1)) == 1


def test_a_few_items_take_no_less_than_one_worker_does() -> None:
    assert seconds_of(1000, 1, 64, measured(), workers=10) == pytest.approx(50)
    assert seconds_of(64, 1, 64, measured(), workers=10) == pytest.approx(32), "one worker has the shard"


@given(st.integers(1, 10**6), st.integers(1, 10**6), positive, st.integers(1, 1024), st.integers(1, 1000))
def test_more_items_never_take_less(fewer: int, more: int, rate: float, shard_items: int, workers: int) -> None:
    fewer, more = sorted((fewer, more))
    few, many = (seconds_of(count, 1, shard_items, measured(rate), workers) for count in (fewer, more))
    assert few <= many


@given(st.integers(1, 10**6), positive, st.integers(1, 1024), st.integers(1, 999))
def test_more_workers_never_take_longer(items: int, rate: float, shard_items: int, workers: int) -> None:
    few, many = (seconds_of(items, 1, shard_items, measured(rate), count) for count in (workers, workers + 1))
    assert many <= few


@given(st.floats(0, 1e6), st.floats(0, 1e6), aheads)
def test_turns_keep_their_order_and_end_by_the_time_that_all_is_done(one: float, other: float, ahead: Ahead) -> None:
    less, more = sorted((one, other))
    (begin, end), (same_begin, later) = turn_of(less, ahead), turn_of(more, ahead)
    assert begin == same_begin
    assert begin <= end <= later
    everything = ahead.own_seconds + ahead.others_seconds + more
    assert later <= everything * (1 + 1e-9)
    assert later >= (ahead.own_seconds + more) * (1 - 1e-9), "not faster than with all workers"


def test_a_team_has_its_share_until_the_others_are_done() -> None:
    assert turn_of(10, Ahead(0, 1000, 0.25)) == (0, 40)
    assert turn_of(10, Ahead(0, 6, 0.25)) == (0, 16)
    assert turn_of(10, Ahead(5, 0)) == (5, 15)


@given(windows(), moments, st.floats(0, 5e5), st.floats(0, 5e5))
def test_the_end_is_in_an_opening_and_later_for_more(window: Window, now: datetime, one: float, other: float) -> None:
    less, more = sorted((one, other))
    end, later = after_open_seconds(window, now, less), after_open_seconds(window, now, more)
    assert end is not None or less > 0
    if end is None:
        return
    assert now <= end
    assert later is None or end <= later
    assert window.opening(end - timedelta(microseconds=1)).opens_at <= end or less == 0
    assert abs(open_seconds(window, now, end) - less) < 1e-3, "only open seconds were counted, and all of them"


@given(moments, st.floats(0, 5e5))
def test_without_a_window_time_just_passes(now: datetime, seconds: float) -> None:
    assert after_open_seconds(None, now, seconds) == now + timedelta(seconds=seconds)
    assert abs(open_seconds(None, now, now + timedelta(seconds=seconds)) - seconds) < 1e-3


@pytest.mark.parametrize(
    ("begin", "hours", "end"),
    [
        ("2026-11-27T12:00", 8, "2026-11-28T06:00"),  # a whole night
        ("2026-11-27T12:00", 9, "2026-11-28T23:00"),  # and an hour of the next
        ("2026-11-27T23:00", 1, "2026-11-28T00:00"),  # it is open
        ("2026-03-28T12:00", 7, "2026-03-29T06:00"),  # the night loses an hour
        ("2026-03-28T12:00", 8, "2026-03-29T23:00"),
        ("2026-10-24T12:00", 9, "2026-10-25T06:00"),  # this one gains one
    ],
)
def test_nights_are_as_long_as_the_clocks_make_them(begin: str, hours: int, end: str) -> None:
    window = parse_window("22:00-06:00 Europe/Berlin")
    assert after_open_seconds(window, berlin(begin), 3600 * hours) == berlin(end)


def test_what_takes_years_has_no_date() -> None:
    assert after_open_seconds(parse_window("Mon 00:00-00:01 UTC"), AT, 10**6) is None
    assert after_open_seconds(None, AT, 1e12) is None


@given(windows(), moments)
def test_the_last_opening_is_over_and_none_came_between(window: Window, now: datetime) -> None:
    last = window.last_opening(now)
    assert last is not None
    assert last.closes_at <= now
    following = window.opening(last.closes_at)
    assert following.closes_at > now
    assert last.opens_at < last.closes_at <= following.opens_at


def test_a_window_that_never_closes_has_no_last_opening() -> None:
    assert parse_window("00:00-24:00 UTC").last_opening(AT) is None
