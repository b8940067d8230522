"""Whose turn it is: shares by weight, no team behind another's queue, none that starves, a shallow queue."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.turns import Head, Queued, Turns

DEPTH = 6
teams = st.lists(
    st.tuples(st.integers(1, 10), st.integers(1, 200)), min_size=1, max_size=6
)  # (weight, cost of a shard)


@dataclass
class Team:
    weight: int
    cost: int
    waiting: int = 0
    taken: int = 0


@dataclass
class System:
    """A dispatcher, the two lists of a queue, and workers that take from them."""

    teams: dict[str, Team]
    turns: Turns = field(default_factory=lambda: Turns(DEPTH))
    express: deque[Queued] = field(default_factory=deque)
    normal: deque[Queued] = field(default_factory=deque)
    ids: count[int] = field(default_factory=count)

    def dispatch(self) -> None:
        self.turns.see([*self.express, *self.normal])
        while True:
            heads = [Head(name, team.weight, team.cost) for name, team in self.teams.items() if team.waiting]
            turns = self.turns.pick(heads)
            taken = 0
            for turn in turns:
                team = self.teams[turn.team_id]
                if not team.waiting:
                    continue
                team.waiting, taken = team.waiting - 1, taken + 1
                shard = Queued(next(self.ids), turn.team_id, team.weight, team.cost)
                self.turns.take(shard, is_express=turn.is_express)
                (self.express if turn.is_express else self.normal).append(shard)
            if taken == len(turns):
                break
        assert len(self.express) <= DEPTH
        assert len(self.normal) <= DEPTH
        if any(team.waiting for team in self.teams.values()):
            assert self.normal or self.express  # workers never stand idle beside work

    def work(self) -> str | None:
        """A worker takes a shard; whose."""
        for shards in (self.express, self.normal):
            if shards:
                team_id = shards.popleft().team_id
                self.teams[team_id].taken += 1
                return team_id
        return None


def system_of(given: list[tuple[int, int]], waiting: int) -> System:
    return System({f"t{n}": Team(weight, cost, waiting) for n, (weight, cost) in enumerate(given)})


@given(teams)
@settings(max_examples=60, deadline=None)
def test_teams_with_work_get_their_weights_share_of_what_is_computed(given: list[tuple[int, int]]) -> None:
    system = system_of(given, 10**9)
    for _ in range(400):
        system.dispatch()
        system.work()
    had = {name: team.taken * team.cost / team.weight for name, team in system.teams.items()}
    most = max(team.cost / team.weight for team in system.teams.values())
    # Each may be one shard of its own, and what lay in the queue, before another.
    assert max(had.values()) - min(had.values()) <= (DEPTH + 2) * most


@given(teams, st.integers(0, 50), st.tuples(st.integers(1, 10), st.integers(1, 200)))
@settings(max_examples=100, deadline=None)
def test_a_small_job_is_next_however_much_is_queued(
    given: list[tuple[int, int]], before: int, small: tuple[int, int]
) -> None:
    system = system_of(given, 10**9)
    for _ in range(before):
        system.dispatch()
        system.work()
    system.teams["small"] = Team(*small, waiting=1)
    system.dispatch()
    ahead = len(system.express)
    takes = 0
    while not system.teams["small"].taken:
        system.work()
        takes += 1
        system.dispatch()
    assert takes <= ahead + 1 or not ahead  # beside an empty queue all come at once, and none is express
    assert takes <= len(given) + 1  # behind one of each other team, whose turn had come too


@given(teams, st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), max_size=40), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_no_team_starves_whoever_comes_and_goes(
    given: list[tuple[int, int]], arrivals: list[tuple[int, int]], speed: int
) -> None:
    """Everything that arrives is taken, and a team with work is served before every other had twice its share."""
    system = system_of(given, 0)
    names = list(system.teams)
    for number, shards in arrivals:
        system.teams[names[number % len(names)]].waiting += shards
        system.dispatch()
        for _ in range(speed):
            system.work()
    left = sum(team.waiting for team in system.teams.values()) + len(system.express) + len(system.normal)
    for _ in range(left):
        system.dispatch()
        assert system.work() is not None
    system.dispatch()
    assert system.work() is None


def test_many_small_teams_take_turns() -> None:
    """More teams than fit the queue: a team that was served does not come again before the others were."""
    system = system_of([(1, 10)] * 40, 5)
    order = []
    while True:
        system.dispatch()
        team_id = system.work()
        if team_id is None:
            break
        order.append(team_id)
    assert len(order) == 200
    for begin in range(0, 200, 40):
        assert set(Counter(order[begin : begin + 40]).values()) == {1}


def test_a_team_that_was_away_has_saved_no_turns_and_owes_none() -> None:
    system = System({"a": Team(1, 10, 10**6), "b": Team(1, 10, 1)})
    for _ in range(200):
        system.dispatch()
        system.work()
    system.teams["b"].waiting = 10**6
    before = {name: team.taken for name, team in system.teams.items()}
    for _ in range(100):
        system.dispatch()
        system.work()
    had = {name: team.taken - before[name] for name, team in system.teams.items()}
    assert abs(had["a"] - had["b"]) <= 2 * DEPTH


def test_another_process_may_fill_the_queue_too() -> None:
    """Two dispatchers beside each other, each of which sees what the other queued."""
    one, two = Turns(DEPTH), Turns(DEPTH)
    queue: deque[Queued] = deque()
    taken, ids = Counter[str](), count()
    for number in range(400):
        turns = (one, two)[number % 2]
        turns.see(queue)
        for turn in turns.pick([Head("a", 3, 1), Head("b", 1, 1)]):
            shard = Queued(next(ids), turn.team_id, 3 if turn.team_id == "a" else 1, 1)
            turns.take(shard, is_express=turn.is_express)
            (queue.appendleft if turn.is_express else queue.append)(shard)
        taken[queue.popleft().team_id] += 1
    assert 2 <= taken["a"] / taken["b"] <= 4


def test_restarted_process_goes_on_with_what_is_queued() -> None:
    turns = Turns(4)
    turns.see([Queued(n, "a", 1, 10) for n in range(4)])
    assert [(turn.team_id, turn.is_express) for turn in turns.pick([Head("a", 1, 10), Head("b", 1, 10)])] == [
        ("b", True)
    ]
