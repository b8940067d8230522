"""When a consumer must connect anew because an acknowledgement was lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from workers.lost_acks import LostAcks


class Request:
    """What a message becomes while it is worked on."""


def consumer_with(num_free: int) -> Any:
    qos = SimpleNamespace(prefetch_count=2, can_consume_max_estimate=lambda: num_free)
    return SimpleNamespace(task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=qos)))


def test_message_that_is_counted_and_worked_on_is_no_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "reserved_requests", {Request(), Request()})
    step = LostAcks(SimpleNamespace())
    for _ in range(5):
        step._check(consumer_with(num_free=0))


def test_message_that_is_counted_and_held_by_nobody_makes_it_connect_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "reserved_requests", {Request()})
    step = LostAcks(SimpleNamespace())
    step._check(consumer_with(num_free=0))  # its acknowledgement may be under way
    step._check(consumer_with(num_free=1))
    step._check(consumer_with(num_free=0))
    with pytest.raises(ConnectionError, match="2 messages"):
        step._check(consumer_with(num_free=0))
