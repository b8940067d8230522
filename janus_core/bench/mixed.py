"""Captions of 8 to 256 tokens, as they come: ours in slots that are filled again, transformers' in batches of eight."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from janus_core.bench.cases import Case
from janus_core.bench.clock import now
from janus_core.bench.compare import Ratio, equal_share
from janus_core.bench.inputs import Inputs
from janus_core.bench.ours import open_lane
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
    seconds: dict[str, list[float]] = {name: [] for name in run}
    answers: dict[str, Tokens] = {}
    for _ in range(rounds):
        for name, action in run.items():
            began = now(engine.model.device)
            answers[name] = action(case, lengths)
            seconds[name].append(now(engine.model.device) - began)
    ours, *peers = run
    figures: dict[str, Any] = {"case": asdict(case), "rounds": rounds, "tokens": sum(lengths), "against": {}}
    figures["contenders"] = {name: {"seconds": statistics.median(times)} for name, times in seconds.items()}
    for name in peers:
        figures["against"][name] = {
            "whole": asdict(Ratio.of([t / m for m, t in zip(seconds[ours], seconds[name], strict=True)])),
            "equal_tokens": equal_share(answers[ours], answers[name]),
        }
    return figures


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
