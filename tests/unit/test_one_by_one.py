"""What fails is tried again, ever more slowly, and holds up nobody."""

from __future__ import annotations

from orchestrator.dispatch.one_by_one import FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, OneByOne


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_fails_waits_and_may_be_left_out_meanwhile() -> None:
    clock, tries = Clock(), list[int]()
    duty = OneByOne("test", "thing", clock=clock)

    def work(thing: str) -> bool:
        if thing == "bad":
            raise OSError("no")
        return True

    def run(*things: str) -> int:
        return duty.run(things, work, lambda thing, count, error: tries.append(count))

    assert (run("bad", "good"), duty.held) == (1, ["bad"])
    assert run("bad") == 0
    assert tries == [1], "it waits for its turn"
    assert run("good") == 1  # whoever lists leaves out what is held
    clock.now += FIRST_DELAY_SECONDS
    assert duty.held == []
    run("good")  # and may have listed just before the wait was over
    assert run("bad", "good") == 1
    assert tries == [1, 2], "its tries are counted on"
    clock.now += 3 * MAX_DELAY_SECONDS
    run("good")
    run("bad")
    assert tries == [1, 2, 1], "what was gone for long is forgotten"


def test_a_round_ends_after_so_many_that_were_done() -> None:
    done = list[int]()
    duty = OneByOne("test", "thing")
    assert duty.run([1, 2, 3, 4], lambda n: n % 2 == 0 and not done.append(n), print, at_most=1) == 1
    assert done == [2]
