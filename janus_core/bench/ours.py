"""We, as the engine does it: its lane, watched turn by turn."""

from __future__ import annotations

from dataclasses import replace

import torch

from janus_core.bench.cases import Case, Timing
from janus_core.bench.clock import now
from janus_core.bench.inputs import Inputs
from janus_core.engine.engine import Engine
from janus_core.engine.painters import TOKEN_GUIDANCE
from janus_core.engine.rows import CaptionRow, ImageRow
from janus_core.engine.sampling import Sampling
from janus_core.engine.token_lane import TokenLane, Watch

GREEDY = Sampling(0.0, 1.0, 0, 0)


class Ours:
    name = "janus-batch"

    def __init__(self, engine: Engine, inputs: Inputs) -> None:
        self._engine, self._inputs = engine, inputs

    def run(self, case: Case) -> Timing:
        rows, lane, device = self._rows(case), self._lane(case), self._engine.model.device
        for row in rows:
            lane.scheduler.add(row)
        first, steps = 0.0, []
        while not lane.is_idle:
            waits, all_run, began = lane.scheduler.waiting(), len(lane.scheduler.running) == case.batch, now(device)
            lane.turn()
            seconds = now(device) - began
            if waits:
                first += seconds
            elif all_run:
                steps.append(seconds)
        tokens = [row.tokens if isinstance(row, CaptionRow) else _codes(row) for row in rows]
        return Timing(first, steps[: case.num_tokens - 1], [each[: case.num_tokens] for each in tokens])

    def _rows(self, case: Case) -> list[CaptionRow | ImageRow]:
        """Longer than asked for by as many turns as it may take until all have begun."""
        length = case.num_tokens + case.batch
        if case.task == "caption":
            return [*self._inputs.caption_rows(replace(case, num_tokens=length))]
        ids = self._inputs.drawing(case)
        return [ImageRow(ids, TOKEN_GUIDANCE, GREEDY, length) for _ in range(case.batch)]

    def _lane(self, case: Case) -> TokenLane:
        return open_lane(self._engine, self._inputs, max_slots=2 * case.batch, max_rows=case.batch)


def open_lane(engine: Engine, inputs: Inputs, *, max_slots: int, max_rows: int) -> TokenLane:
    """The engine's, but every answer has its length, and a turn is one step on an accelerator too, as it is watched."""

    def go_on(_: object, logits_BV: torch.Tensor) -> None:
        logits_BV[:, inputs.eos_id] = -torch.inf

    return TokenLane(
        engine.model,
        image_id=inputs.image_id,
        eos_id=inputs.eos_id,
        pad_id=inputs.pad_id,
        max_slots=max_slots,
        max_rows=max_rows,
        watch=Watch(on_text=go_on),
    )


def _codes(row: ImageRow) -> list[int]:
    assert row.codes is not None
    codes: list[int] = row.codes.tolist()
    return codes
