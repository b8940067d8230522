"""Requests of many tickets share batches, and one bad request answers for itself alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from workers.engine_host import Caption, EngineHost, GenerateRequest, Rejected


class RecordingEngine:
    """Answers with the prompt; waits for `gate` so that a test decides when a batch begins."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[str]] = []

    def generate(self, requests: Sequence[GenerateRequest], *, is_cancelled: Callable[[int], bool]) -> list[Any]:
        prompts = [request.prompt for request in requests]
        self.batches.append(prompts)
        self.begun.set()
        assert self.gate.wait(10)
        if "bad" in prompts:
            raise RuntimeError("no kernel image is available")
        return [
            Rejected("cancelled", "c") if is_cancelled(i) else Caption(prompt, (), "stop")
            for i, prompt in enumerate(prompts)
        ]


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def host(engine: RecordingEngine) -> Iterator[EngineHost]:
    opened = EngineHost({"a": engine, "b": engine}, max_batch=4)
    yield opened
    engine.gate.set()
    opened.close()


def requests(*prompts: str) -> list[GenerateRequest]:
    return [GenerateRequest(prompt=prompt) for prompt in prompts]


def test_tickets_share_batches_and_get_their_own_answers_in_order(host: EngineHost, engine: RecordingEngine) -> None:
    first = host.submit("a", requests("1"))
    assert engine.begun.wait(5)
    others = [
        host.submit("a", requests("2", "3")),
        host.submit("b", requests("x")),
        host.submit("a", requests("4", "5")),
    ]
    engine.gate.set()
    assert [answer.text for answer in first.answers.result(5)] == ["1"]
    assert [[a.text for a in other.answers.result(5)] for other in others] == [["2", "3"], ["x"], ["4", "5"]]
    assert engine.batches == [["1"], ["2", "3", "4", "5"], ["x"]]


def test_bad_request_fails_alone(host: EngineHost, engine: RecordingEngine) -> None:
    blocker = host.submit("a", requests("0"))
    assert engine.begun.wait(5)
    tickets = [host.submit("a", requests(prompt)) for prompt in ("1", "bad", "2", "3")]
    engine.gate.set()
    blocker.answers.result(5)
    assert [tickets[n].answers.result(5)[0].text for n in (0, 2, 3)] == ["1", "2", "3"]
    with pytest.raises(RuntimeError, match="kernel"):
        tickets[1].answers.result(5)


def test_cancelled_ticket_never_reaches_the_engine(host: EngineHost, engine: RecordingEngine) -> None:
    running = host.submit("a", requests("1"))
    assert engine.begun.wait(5)
    waiting = host.submit("a", requests("2"))
    waiting.cancel()
    running.cancel()
    engine.gate.set()
    assert [ticket.answers.result(5)[0].code for ticket in (running, waiting)] == ["cancelled", "cancelled"]
    assert engine.batches == [["1"]]
