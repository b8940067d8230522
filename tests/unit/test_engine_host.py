"""Requests of many tickets run side by side, and one bad request answers for itself alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.fake_engine import FakeEngine, Row
from workers import engine_host
from workers.engine_host import Caption, EngineHost, GenerateRequest, Rejected


@dataclass(eq=False, kw_only=True)
class AskedRow(Row):
    prompt: str
    job: str


class GatedEngine(FakeEngine):
    """Answers with the prompt, everything at its next turn; a turn waits for `gate`, so that a test decides when."""

    def __init__(self) -> None:
        super().__init__("gated", max_rows=4)
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.turns: list[list[str]] = []

    def prepare(self, request: GenerateRequest, *, job: str, order: int) -> AskedRow | Rejected:
        return AskedRow(prompt=request.prompt, job=job) if request.prompt else Rejected("prompt_empty", "say something")

    def turn(self) -> list[AskedRow]:
        self.begun.set()
        assert self.gate.wait(10)
        left, self.started = self.started, []
        self.turns.append([row.prompt for row in left if not row.is_cancelled])
        bad = [row for row in left if row.prompt.startswith("bad")]
        if bad and len(left) > 1:
            self.started = [row for row in left if row not in bad]
            for row in bad:
                row.error = RuntimeError("no kernel image is available")
            return bad
        for row in left:
            if row.prompt == "raise once":
                row.prompt, self.started = "raised", left
                raise RuntimeError("a batch failed")
            row.answer = Rejected("cancelled", "c") if row.is_cancelled else Caption(row.prompt, (), "stop")
        return left


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def host(engine: GatedEngine) -> Iterator[EngineHost]:
    opened = EngineHost({"a": engine, "b": GatedEngine()})
    yield opened
    engine.gate.set()
    opened.close()


def submit(host: EngineHost, *prompts: str) -> engine_host.Ticket:
    ticket = host.prepare("a", [GenerateRequest(prompt=prompt) for prompt in prompts])
    host.submit([ticket])
    return ticket


def texts(ticket: engine_host.Ticket) -> list[str]:
    return [answer.text if isinstance(answer, Caption) else "" for answer in ticket.answers.result(5)]


def test_tickets_run_side_by_side_and_get_their_own_answers_in_order(host: EngineHost, engine: GatedEngine) -> None:
    first = submit(host, "1")
    assert engine.begun.wait(5)
    others = [submit(host, "2", "3"), submit(host, "4", "5")]
    engine.gate.set()
    assert texts(first) == ["1"]
    assert [texts(other) for other in others] == [["2", "3"], ["4", "5"]]
    assert engine.turns == [["1"], ["2", "3", "4", "5"]]


def test_rejected_requests_never_reach_the_engine_and_keep_their_place(host: EngineHost, engine: GatedEngine) -> None:
    engine.gate.set()
    answers = submit(host, "", "2").answers.result(5)
    assert isinstance(answers[0], Rejected)
    assert isinstance(answers[1], Caption)
    only = submit(host, "").answers.result(0)
    assert isinstance(only[0], Rejected)
    assert submit(host).answers.result(0) == []


def test_bad_request_fails_its_own_ticket_alone(host: EngineHost, engine: GatedEngine) -> None:
    blocker = submit(host, "0")
    assert engine.begun.wait(5)
    tickets = [submit(host, *prompts) for prompts in (("1",), ("bad", "beside"), ("2",), ("3",))]
    engine.gate.set()
    blocker.answers.result(5)
    assert [texts(tickets[n]) for n in (0, 2, 3)] == [["1"], ["2"], ["3"]]
    with pytest.raises(RuntimeError, match="kernel"):
        tickets[1].answers.result(5)
    assert "beside" not in engine.turns[-1], "its item has failed"


def test_batch_that_raised_runs_again(host: EngineHost, engine: GatedEngine) -> None:
    engine.gate.set()
    assert texts(submit(host, "raise once")) == ["raised"]


def test_broken_device_ends_the_process(host: EngineHost, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    died = threading.Event()
    monkeypatch.setattr(engine_host, "die", lambda reason: died.set() if "CUDA error" in reason else None)

    def turn() -> list[Row]:
        left, engine.started = engine.started, []
        left[0].error = RuntimeError("CUDA error: an illegal memory access was encountered")
        return left

    monkeypatch.setattr(engine, "turn", turn)
    submit(host, "1")
    assert died.wait(5)


def test_cancelled_tickets_leave(host: EngineHost, engine: GatedEngine) -> None:
    running = submit(host, "1")
    assert engine.begun.wait(5)
    waiting = submit(host, "2")
    waiting.cancel()
    running.cancel()
    engine.gate.set()
    for ticket in (running, waiting):
        (answer,) = ticket.answers.result(5)
        assert isinstance(answer, Rejected)
    assert engine.turns == [[], []]


def test_what_has_begun_cannot_be_taken_back(host: EngineHost, engine: GatedEngine) -> None:
    engine.gate.set()
    done, rejected = submit(host, "done"), submit(host, "")
    done.answers.result(5)
    engine.gate.clear()
    engine.begun.clear()
    running = submit(host, "1", "2")
    assert engine.begun.wait(5)
    running.rows[0].begun_at = 1.0
    waiting = submit(host, "3")
    with ThreadPoolExecutor(1) as pool:
        withdrawn = pool.submit(host.withdraw, [done, running, waiting, rejected])
        assert not withdrawn.done(), "the turn that is taken may begin any of them"
        engine.gate.set()
        assert withdrawn.result(5) == {waiting, rejected}
    assert texts(running) == ["1", "2"]
    waiting.answers.result(5)
    assert engine.turns == [["done"], ["1", "2"], []]


def test_nothing_is_taken_back_from_a_closed_host(engine: GatedEngine) -> None:
    engine.gate.set()
    host = EngineHost({"a": engine})
    host.close()
    assert host.withdraw([host.prepare("a", [GenerateRequest(prompt="1")])]) == set()


def test_closing_gives_up_what_runs(engine: GatedEngine) -> None:
    host = EngineHost({"a": engine})
    ticket = submit(host, "1")
    assert engine.begun.wait(5)
    assert host.stuck_seconds() > 0
    closing = threading.Thread(target=host.close)
    closing.start()
    engine.gate.set()
    closing.join(5)
    assert ticket.answers.done()
    assert host.stuck_seconds() == 0
    with pytest.raises(RuntimeError, match="closed"):
        submit(host, "2")
