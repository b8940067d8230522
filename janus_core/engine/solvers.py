"""When the velocity is asked for on the way from noise (t = 0) to picture (t = 1), and what is done with it.

Source of Euler: deepseek-ai/Janus@1daa72f demo/app_janusflow.py:100-138, left endpoints. Heun is the explicit trapezoid
rule: a trial step, and then one with the mean of the velocities at both ends; its last velocity is asked for at t = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Solver = Literal["euler", "heun"]


@dataclass(frozen=True)
class Move:
    """Ask for the velocity at the point and `time`; the next point is base + now x it + before x the one before it.

    time: 1000 t. is_trial: the base stays; otherwise it becomes the next point.
    """

    time: float
    now: float
    before: float = 0.0
    is_trial: bool = False


def plan(solver: Solver, num_steps: int) -> list[Move]:
    """The moves that lead from noise to picture; as many as the model is asked."""
    return euler(num_steps) if solver == "euler" else heun(num_steps)


def euler(num_steps: int) -> list[Move]:
    """One velocity a step."""
    return [Move(step / num_steps * 1000, 1 / num_steps) for step in range(num_steps)]


def heun(num_steps: int) -> list[Move]:
    """Two velocities a step: errors shrink with the square of the steps."""
    size, moves = 1 / num_steps, []
    for step in range(num_steps):
        moves.append(Move(step / num_steps * 1000, size, is_trial=True))
        moves.append(Move((step + 1) / num_steps * 1000, size / 2, size / 2))
    return moves
