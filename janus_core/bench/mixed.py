"""Captions of 8 to 256 tokens: ours in the engine's slots, filled again as they come free, transformers' in eights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from janus_core.bench.cases import Case
from janus_core.bench.compare import equal_share
from janus_core.bench.inputs import Inputs
from janus_core.bench.ours import open_lane
from janus_core.bench.turns import in_turns
from janus_core.engine.engine import Engine

SHORTEST, LONGEST, BATCH = 8, 256, 8

Tokens = list[list[int]]
Lengths = Sequence[int]


@torch.inference_mode()
def compare_mixed(case: Case, engine: Engine, inputs: Inputs, peer: Any, rounds: int) -> dict[str, Any]:
    """Seconds of all captions by everybody in turn, after two short ones to warm up; `tokens` bounds the longest."""
    drawn = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, case.batch)
    lengths = [min(case.num_tokens, length) for length in drawn.tolist()]
    run: dict[str, Callable[[Case, Lengths], Tokens]] = {"janus-batch": partial(_ours, engine, inputs)}
    if peer is not None:
        run["transformers"] = partial(_theirs, inputs, peer)
    for action in run.values():
        action(replace(case, batch=2), [2, 3])
    everybody = {name: partial(action, case, lengths) for name, action in run.items()}
    figures, answers = in_turns(everybody, rounds, engine.model.device)
    for name, against in figures["against"].items():
        against["equal_tokens"] = equal_share(answers["janus-batch"], answers[name])
    return figures | {"case": asdict(case), "tokens": sum(lengths)}


def _ours(engine: Engine, inputs: Inputs, case: Case, lengths: Lengths) -> Tokens:
    rows = [
        replace(row, max_new_tokens=length, tokens=[])
        for row, length in zip(inputs.caption_rows(case), lengths, strict=True)
    ]
    lane = open_lane(engine, inputs, max_slots=engine.max_rows, max_rows=engine.max_rows)
    for row in rows:
        lane.scheduler.add(row)
    while not lane.is_idle:
        lane.turn()
    return [row.tokens for row in rows]


def _theirs(inputs: Inputs, peer: Any, case: Case, lengths: Lengths) -> Tokens:
    """Each batch goes on to its longest."""
    ids, pixels = inputs.question(case)
    answers: Tokens = []
    for first in range(0, len(lengths), BATCH):
        some = slice(first, first + BATCH)
        longest = max(lengths[some])
        tokens = peer.generate(
            input_ids=ids[some],
            attention_mask=torch.ones_like(ids[some]),
            pixel_values=pixels[some],
            min_new_tokens=longest,
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=inputs.eos_id,
            pad_token_id=inputs.eos_id,
        )[:, ids.shape[1] :].tolist()
        answers += [row[:length] for row, length in zip(tokens, lengths[some], strict=True)]
    return answers
