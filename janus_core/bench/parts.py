"""Single parts beside transformers': the vision tower with its aligner, and pictures from codes.

Shapes: B images, T codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from janus_core.bench.cases import Case
from janus_core.bench.inputs import Inputs
from janus_core.bench.turns import in_turns
from janus_core.engine.engine import Engine
from janus_core.engine.painters import DECODE_IMAGES
from janus_core.models.janus import Janus


@torch.inference_mode()
def compare_parts(case: Case, engine: Engine, inputs: Inputs, peer: Any, rounds: int) -> dict[str, Any]:
    """Each in turn, one round to warm up.

    Returns:
        seconds of each; how many times faster we are; the length of what differs by that of theirs.
    """
    run = (_encoders if case.task == "encode" else _decoders)(case, engine, inputs, peer)
    for action in run.values():
        action()
    figures, results = in_turns(run, rounds, engine.model.device)
    for name, against in figures["against"].items():
        theirs = results[name].float()
        against["difference"] = float((results["janus-batch"].float() - theirs).norm() / theirs.norm())
    return figures | {"case": asdict(case)}


def _encoders(case: Case, engine: Engine, inputs: Inputs, peer: Any) -> dict[str, Callable[[], Tensor]]:
    """Pictures to what the language model reads; ours as the engine does it, as many as make one pass."""
    _, pixels_BCHW = inputs.question(case)
    run: dict[str, Callable[[], Tensor]] = {
        "janus-batch": lambda: torch.cat([engine.model.embed_images(one[None]) for one in pixels_BCHW])
    }
    if peer is not None:
        run["transformers"] = lambda: peer.model.get_image_features(pixels_BCHW).pooler_output
    return run


def _decoders(case: Case, engine: Engine, inputs: Inputs, peer: Any) -> dict[str, Callable[[], Tensor]]:
    """Codes to pixels."""
    model = engine.model
    assert isinstance(model, Janus)
    shape = case.batch, model.config.num_codes_per_image
    codes_BT = torch.randint(model.config.vq.num_codes, shape, generator=torch.Generator().manual_seed(0))
    codes_BT = codes_BT.to(model.device)
    run: dict[str, Callable[[], Tensor]] = {
        "janus-batch": lambda: torch.cat(
            [model.decode_codes(codes_BT[n : n + DECODE_IMAGES]) for n in range(0, case.batch, DECODE_IMAGES)]
        )
    }
    if peer is not None:
        run["transformers"] = lambda: peer.model.vqmodel.decode(codes_BT)
    return run
