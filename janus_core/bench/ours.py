"""We, as the engine does it: its lane, watched turn by turn."""

from __future__ import annotations

import time

import torch

from janus_core.bench.cases import GUIDANCE, Case, Timing
from janus_core.bench.inputs import Inputs
from janus_core.bench.probe import synchronise
from janus_core.engine.engine import Engine
from janus_core.engine.rows import CaptionRow, ImageRow
from janus_core.engine.sampling import Sampling
from janus_core.engine.token_lane import TokenLane, Watch

GREEDY = Sampling(0.0, 1.0, 0, 0)


class Ours:
    name = "janus-batch"

    def __init__(self, engine: Engine, inputs: Inputs) -> None:
        self._engine, self._inputs = engine, inputs

    def run(self, case: Case) -> Timing:
        rows, lane = self._rows(case), self._lane(case)
        for row in rows:
            lane.scheduler.add(row)
        turns: list[tuple[float, bool]] = []
        while not lane.is_idle:
            waits, began = bool(lane.scheduler.waiting()), time.perf_counter()
            lane.turn()
            synchronise(self._engine.model.device)
            turns.append((time.perf_counter() - began, waits))
        steps = [seconds for seconds, waited in turns if not waited]
        usual = sorted(steps)[len(steps) // 2]
        first = sum(seconds - usual for seconds, waited in turns if waited)  # such a turn takes a step as well
        tokens = [row.tokens if isinstance(row, CaptionRow) else _codes(row) for row in rows]
        return Timing(first, steps, tokens)

    def _rows(self, case: Case) -> list[CaptionRow | ImageRow]:
        if case.task == "caption":
            return [*self._inputs.caption_rows(case)]
        ids = self._inputs.drawing(case)
        return [ImageRow(ids, GUIDANCE, GREEDY, case.num_tokens) for _ in range(case.batch)]

    def _lane(self, case: Case) -> TokenLane:
        eos_id = self._inputs.eos_id

        def go_on(_: object, logits_BV: torch.Tensor) -> None:
            """Every answer has its length."""
            logits_BV[:, eos_id] = -torch.inf

        return TokenLane(
            self._engine.model,
            image_id=self._inputs.image_id,
            eos_id=eos_id,
            pad_id=self._inputs.pad_id,
            max_slots=2 * case.batch,
            max_rows=case.batch,
            watch=Watch(on_text=go_on),
        )


def _codes(row: ImageRow) -> list[int]:
    assert row.codes is not None
    codes: list[int] = row.codes.tolist()
    return codes
