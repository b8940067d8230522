"""The scheduler against a simulated engine: nobody starves, no slot is lost, little is wasted, jobs share fairly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from janus_core.engine.scheduler import Limits, Scheduler
from janus_core.engine.seating import Seating

LIMITS = Limits(num_slots=8, capacity=100, prefill_tokens=64, max_rows=8)


@dataclass(eq=False)
class Fake:
    """A request that is answered after so many steps."""

    job: str
    num_slots: int
    num_steps: int
    num_prompt_tokens: int = 4
    order: int = 0

    @property
    def num_positions(self) -> int:
        return self.num_prompt_tokens + self.num_steps


def fakes(seed: int, count: int) -> list[Fake]:
    dice = random.Random(seed)
    return [
        Fake(dice.choice("abc"), dice.choice((1, 2)), dice.randrange(1, 60), dice.randrange(1, 30))
        for _ in range(count)
    ]


class Simulation:
    """Turns as a lane takes them; `had` counts the tokens of each job's requests: of prompts, and of steps."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.scheduler: Scheduler[Fake] = Scheduler(limits)
        self.had: Counter[str] = Counter()
        self.left: dict[Fake, int] = {}
        self.done: list[Fake] = []

    def turn(self) -> list[Fake]:
        begun = self.scheduler.admit()
        self.left |= {row: row.num_steps for row in begun}
        assert sum(row.num_slots for row in self.scheduler.running) <= self.scheduler.limits.num_slots
        assert all(row.num_positions <= self.scheduler.limits.capacity for row in begun)
        for row in begun:
            self.had[row.job] += row.num_prompt_tokens
        self.scheduler.charge(1)
        for row in self.scheduler.running:
            self.left[row] -= 1
            self.had[row.job] += row.num_slots
        ended = [row for row in self.scheduler.running if not self.left[row]]
        self.scheduler.leave(ended)
        self.done += ended
        return begun

    def run(self, until: Callable[[], bool]) -> int:
        turns = 0
        while not until():
            self.turn()
            turns += 1
        return turns


@pytest.mark.parametrize("seed", range(20))
def test_everything_ends_and_hardly_a_slot_is_idle_while_something_waits(seed: int) -> None:
    rows, simulation = fakes(seed, 80), Simulation(replace(LIMITS, prefill_tokens=1000))
    for row in rows:
        simulation.scheduler.add(row)
    while not simulation.scheduler.is_idle:
        waits = bool(simulation.scheduler.waiting())
        free = simulation.scheduler.num_free
        begun = simulation.turn()
        if waits and simulation.scheduler.waiting():
            assert free - sum(row.num_slots for row in begun) <= 1
    assert sorted(map(id, simulation.done)) == sorted(map(id, rows))
    assert simulation.scheduler.num_free == LIMITS.num_slots


@pytest.mark.parametrize("seed", range(20))
def test_requests_come_are_cancelled_and_break_their_batch(seed: int) -> None:
    dice, rows, simulation = random.Random(seed), fakes(seed, 120), Simulation()
    scheduler, waiting, given_up = simulation.scheduler, list(rows), []
    while waiting or not scheduler.is_idle:
        for _ in range(min(len(waiting), dice.randrange(4))):
            scheduler.add(waiting.pop())
        simulation.turn()
        there = [*scheduler.running, *scheduler.waiting()]
        if there and dice.random() < 0.2:
            given_up.append(dice.choice(there))
            scheduler.leave(given_up[-1:])
        if dice.random() < 0.05:
            dice.choice((scheduler.set_apart, scheduler.requeue))()
    assert sorted(map(id, [*simulation.done, *given_up])) == sorted(map(id, rows))
    assert scheduler.num_free == LIMITS.num_slots


def test_within_a_job_the_oldest_request_goes_first_whatever_its_size() -> None:
    rows, simulation = [replace(row, job="a") for row in fakes(0, 60)], Simulation()
    for row in rows:
        simulation.scheduler.add(row)
    begun: list[Fake] = []
    while not simulation.scheduler.is_idle:
        begun += simulation.turn()
    assert begun == rows


def test_within_a_job_what_comes_first_in_its_order_goes_first_though_it_arrived_later() -> None:
    """So of two shards in flight the earlier one ends first, and its successor is fetched while the other runs."""
    orders = [70, 71, 72, 3, 4, 71, 5, 70]
    rows, simulation = [Fake("a", 8, 5, order=order) for order in orders], Simulation()
    for row in rows:
        simulation.scheduler.add(row)
    begun = simulation.turn()
    simulation.scheduler.requeue()
    while not simulation.scheduler.is_idle:
        begun += simulation.turn()
    assert begun == [rows[n] for n in (3, 3, 4, 6, 0, 7, 1, 5, 2)]


def test_a_large_job_does_not_hold_up_a_small_one() -> None:
    simulation = Simulation()
    for _ in range(500):
        simulation.scheduler.add(Fake("large", 2, 50))
    simulation.run(lambda: len(simulation.done) >= 8)
    small = [Fake("small", 1, 10) for _ in range(10)]
    for row in small:
        simulation.scheduler.add(row)
    turns = simulation.run(lambda: set(small) <= set(simulation.done))
    assert turns <= 2 * 50 + 3 * 10, "those that run end, then it has its share"


def test_jobs_that_wait_get_equal_shares_whatever_the_length_of_their_requests() -> None:
    simulation = Simulation()
    for _ in range(2000):
        simulation.scheduler.add(Fake("long", 1, 90, 1))
        simulation.scheduler.add(Fake("short", 1, 3, 1))
        simulation.scheduler.add(Fake("pairs", 2, 20, 1))
    for _ in range(1500):
        simulation.turn()
    shares = sorted(simulation.had.values())
    assert shares[-1] / shares[0] < 1.1


def test_who_comes_back_has_no_credit_from_before() -> None:
    simulation = Simulation()
    for _ in range(3000):
        simulation.scheduler.add(Fake("steady", 1, 10))
    for _ in range(500):
        simulation.turn()
    for _ in range(1000):
        simulation.scheduler.add(Fake("newcomer", 1, 10))
    before = simulation.had["steady"]
    for _ in range(100):
        simulation.turn()
    assert simulation.had["steady"] - before >= 300


def test_a_prefill_is_bounded_and_padding_counts() -> None:
    simulation = Simulation()
    for tokens in (30, 2, 2, 2):
        simulation.scheduler.add(Fake("a", 1, 5, tokens))
    assert [row.num_prompt_tokens for row in simulation.turn()] == [30, 2]
    assert [row.num_prompt_tokens for row in simulation.turn()] == [2, 2]
    alone = Fake("a", 1, 5, 90)
    simulation.scheduler.add(alone)
    assert simulation.turn() == [alone], "a prompt longer than the bound goes by itself"


def test_what_fits_no_slot_waits_until_the_pool_can_be_made_anew() -> None:
    simulation, long = Simulation(), Fake("a", 1, 150)
    scheduler = simulation.scheduler
    for row in (Fake("a", 1, 3), long, Fake("a", 1, 3)):
        scheduler.add(row)
    assert len(simulation.turn()) == 1
    assert scheduler.too_long() is None, "something runs"
    simulation.run(lambda: not scheduler.running)
    assert scheduler.too_long() == long.num_positions
    scheduler.limits = replace(LIMITS, capacity=200)
    assert scheduler.too_long() is None
    assert len(simulation.turn()) == 2


def test_rows_set_apart_run_in_halves_and_before_all_others() -> None:
    simulation = Simulation()
    scheduler, rows = simulation.scheduler, [Fake("a", 1, 4) for _ in range(5)]
    for row in rows:
        scheduler.add(row)
    simulation.turn()
    scheduler.add(Fake("b", 1, 1))
    scheduler.set_apart()
    assert simulation.turn() == rows[:3]
    scheduler.set_apart()
    assert simulation.turn() == rows[:2]
    assert simulation.turn() == [], "nobody joins"
    scheduler.leave([rows[2], rows[4]])
    simulation.run(lambda: not scheduler.running)
    assert simulation.turn() == [rows[3]]
    simulation.run(lambda: not scheduler.running)
    assert [row.job for row in simulation.turn()] == ["b"]
    assert scheduler.is_idle


def test_a_job_that_always_runs_a_little_saves_up_no_share() -> None:
    simulation = Simulation()
    simulation.scheduler.add(Fake("a", 1, 1000, 1))
    simulation.scheduler.limits = replace(LIMITS, capacity=2000)
    for _ in range(2000):
        simulation.scheduler.add(Fake("b", 1, 10))
    simulation.run(lambda: len(simulation.done) > 400)
    for _ in range(500):
        simulation.scheduler.add(Fake("a", 1, 10))
    before = simulation.had["b"]
    simulation.run(lambda: len(simulation.done) > 600)
    assert simulation.had["b"] - before > 600


def test_newcomers_sit_in_holes_and_the_last_move_forward() -> None:
    seating: Seating[Fake] = Seating()
    rows = [Fake("a", size, 1) for size in (1, 2, 1, 2)]
    seats = [seating.sit(row) for row in rows]
    assert [seat.slots for seat in seats] == [[0], [1, 2], [3], [4, 5]]
    seating.leave([rows[1]])
    assert seating.sit(Fake("a", 1, 1)).slots == [1]
    assert seating.close_ranks() == [(5, 2, rows[3])]
    assert seats[3].slots == [4, 2]
    assert seating.close_ranks() == []
    assert sorted(slot for seat in seating.seats for slot in seat.slots) == [0, 1, 2, 3, 4]
