"""Whose turn it is at the workers of one model: weighted fair queueing, by the start of each shard in virtual time.

Each team has a clock that goes on by cost / weight with every shard of it that is queued; the team whose clock shows
the least is next. A team that comes, or comes back, starts where the queue's head is: it gets no turns for the time it
was away, and waits behind none that others took in it. So a team with work gets, in the long run, its weight's share
of what is computed, whatever the sizes of shards and jobs.

A queue is a list and cannot be sorted again. So a shard whose turn comes before one that is queued already does not go
to its end: it waits until its turn is that of the head, and then goes into the express list, which workers empty first.
A team of ten items is not behind the sixteen shards that another team had queued before.

What is known lives in the process. Lost with it is no shard and no order within a team, but who had how much lately.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_WEIGHT = 1000


@dataclass(frozen=True)
class Head:
    """A team's next shard that may run. cost: answers that it will take, 1 at least."""

    team_id: str
    weight: int
    cost: float


@dataclass(frozen=True)
class Queued:
    """A shard in the queue that no worker has taken."""

    shard_id: int
    team_id: str
    weight: int
    cost: float


@dataclass(frozen=True)
class Turn:
    """A team's place among those that go into the queue now, in the order of the list that holds it."""

    team_id: str
    is_express: bool


class Turns:
    """The order of one model's queue.

    Args:
        depth: most shards in each of the two lists.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._now = 0.0  # virtual: where the shard starts that workers take next
        self._ends: dict[str, float] = {}  # of each team, where its last shard ends
        self._served: dict[str, int] = {}  # of each team, the number of the turn it had last
        self._number = 0
        self._starts: dict[int, float] = {}  # of each queued shard
        self._express: set[int] = set()
        self._ready: set[str] = set()  # teams that had more to do when they were looked at last

    def see(self, queued: Iterable[Queued]) -> None:
        """Take note of what is in the queue now, in the order in which it got there.

        What has gone was taken by workers; what is new was put there by another process.
        """
        now_queued = list(queued)
        ids = {shard.shard_id for shard in now_queued}
        self._starts = {shard_id: start for shard_id, start in self._starts.items() if shard_id in ids}
        self._express &= ids
        for shard in now_queued:
            if shard.shard_id not in self._starts:
                self.take(shard, is_express=False)
        if self._starts:
            self._now = max(self._now, min(self._starts.values()))

    def pick(self, heads: Sequence[Head]) -> list[Turn]:
        """Who is next, as far as there is room; every team's further shards are taken to cost what its first does."""
        starts = {head.team_id: self._start(head.team_id) for head in heads}
        if heads and not self._starts:
            self._now = max(self._now, min(starts.values()))
        self._ends |= starts  # whoever is ready from now on keeps the turns that it does not get at once
        self._ready = set(starts)
        last = max(self._starts.values(), default=self._now)
        free = max(0, self._depth - len(self._starts) + len(self._express))
        free_express = max(0, self._depth - len(self._express))
        served, number = dict(self._served), self._number
        costs = {head.team_id: head.cost / head.weight for head in heads}
        turns: list[Turn] = []
        while starts:
            team_id = min(starts, key=lambda team: (starts[team], served.get(team, 0), team))
            is_express = starts[team_id] < last and bool(self._starts)
            if free_express if is_express and starts[team_id] <= self._now else free if not is_express else 0:
                turns.append(Turn(team_id, is_express))
                free, free_express = free - (not is_express), free_express - is_express
                last = max(last, starts[team_id])
                starts[team_id] += costs[team_id]
                number += 1
                served[team_id] = number
            else:
                del starts[team_id]  # there is no room, or its turn has not come
        return turns

    def take(self, shard: Queued, *, is_express: bool) -> None:
        """A shard went into the queue: its team's clock goes on."""
        start = self._start(shard.team_id)
        self._starts[shard.shard_id] = start
        self._ends[shard.team_id] = start + shard.cost / shard.weight
        self._number += 1
        self._served[shard.team_id] = self._number
        self._ready.add(shard.team_id)
        if is_express:
            self._express.add(shard.shard_id)

    def _start(self, team_id: str) -> float:
        end = self._ends.get(team_id, 0.0)
        return end if team_id in self._ready else max(end, self._now)
