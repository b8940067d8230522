"""A team's requests: a minute's worth at once, then as many as come in evenly."""

from __future__ import annotations

import pytest

from orchestrator.domain.rates import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def test_a_minutes_requests_at_once_then_one_by_one() -> None:
    clock = Clock()
    rates = RateLimit(60, clock)
    assert [rates.take("a") for _ in range(60)] == [0.0] * 60
    assert rates.take("a") == pytest.approx(1)
    clock.now += 0.5
    assert rates.take("a") == pytest.approx(0.5)
    assert rates.take("b") == 0.0, "another team has its own"
    clock.now += 0.5
    assert rates.take("a") == 0.0
    assert rates.take("a") > 0
    clock.now += 3600
    assert [rates.take("a") == 0 for _ in range(61)] == [True] * 60 + [False]


def test_the_seconds_asked_for_are_enough() -> None:
    clock = Clock()
    rates = RateLimit(7, clock)
    taken = 0
    for _ in range(2000):
        wait_seconds = rates.take("a")
        taken += not wait_seconds
        clock.now += wait_seconds
    assert taken == 7 + 996, "after the first seven each is refused once"


def test_nought_is_no_limit() -> None:
    rates = RateLimit(0)
    assert {rates.take("a") for _ in range(1000)} == {0.0}


def test_buckets_that_are_full_again_are_forgotten() -> None:
    now = 0.0
    limit = RateLimit(60, clock=lambda: now)
    for number in range(RateLimit.MAX_KEPT):
        limit.take(f"address {number}")
    now = 3600.0
    limit.take("one more")
    assert limit.num_kept == 1
