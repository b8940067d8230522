from __future__ import annotations

import math

import pytest

from janus_core.engine.solvers import Solver, plan


def solve(solver: Solver, num_steps: int) -> float:
    """z' = cos(t) z from z(0) = 1, as the drawer makes the moves."""
    base = point = 1.0
    last = 0.0
    for move in plan(solver, num_steps):
        velocity = math.cos(move.time / 1000) * point
        point = base + move.now * velocity + move.before * last
        base, last = base if move.is_trial else point, velocity
    return point


def error(solver: Solver, num_steps: int) -> float:
    return abs(solve(solver, num_steps) - math.exp(math.sin(1)))


def test_euler_asks_at_the_left_ends() -> None:
    moves = plan("euler", 4)
    assert [move.time for move in moves] == [0, 250, 500, 750]
    assert {(move.now, move.before, move.is_trial) for move in moves} == {(0.25, 0, False)}


def test_heun_asks_at_both_ends() -> None:
    assert [move.time for move in plan("heun", 4)] == [0, 250, 250, 500, 500, 750, 750, 1000]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_errors_shrink_with_the_order_of_the_solver(solver: Solver, order: int) -> None:
    for num_steps in (20, 40, 80):
        assert error(solver, num_steps) / error(solver, 2 * num_steps) == pytest.approx(2**order, rel=0.1)
