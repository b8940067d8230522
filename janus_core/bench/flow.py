"""JanusFlow's moves, by the engine and by the published loop on transformers' Llama, written anew for measuring only.

The loop draws one prompt at a time and runs it again with every move; its encoder and decoder are ours, plain.

Shapes: B images of a prompt, P tokens, T = 1 + N with the time, C x H x Y latents.
Source: deepseek-ai/Janus@1daa72f demo/app_janusflow.py:78-138.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janus_core.bench.cases import Case, CaseInvalid
from janus_core.bench.inputs import Inputs
from janus_core.bench.turns import in_turns
from janus_core.checkpoints.load import load_model
from janus_core.checkpoints.weights import find_weight_files, list_tensors, read_tensors
from janus_core.engine.engine import Engine
from janus_core.engine.flow_lane import FlowLane
from janus_core.engine.painters import FLOW_GUIDANCE, FLOW_STEPS, draw_noise
from janus_core.engine.rows import FlowRow
from janus_core.engine.solvers import euler
from janus_core.models.janusflow import JanusFlow

_LLAMA = "language_model.model."


@torch.inference_mode()
def compare_flow(
    case: Case, engine: Engine, inputs: Inputs, folder: Path, peers: Sequence[str], rounds: int
) -> dict[str, Any]:
    """`batch` different prompts, `num_tokens` steps of Euler each; one step of one prompt to warm up.

    Args:
        peers: transformers has no JanusFlow, and is left out where it is not the only one.
    Returns:
        seconds of each; how many times faster we are; the length of what differs by that of theirs.
    Raises:
        CaseInvalid: nobody to compare with does this.
    """
    if case.task != "generate" or tuple(peers) == ("transformers",):
        raise CaseInvalid("of JanusFlow --task generate can be measured, beside --peer official-style or none")
    prompts, noise = _drawings(case, engine, inputs)
    run: dict[str, Callable[[int, int], Tensor]] = {
        "janus-batch": lambda count, steps: _ours(engine.model, inputs.pad_id, prompts[:count], noise[:count], steps)
    }
    if peers:
        loop = PublishedLoop(folder, engine.model.dtype, engine.model.device, inputs.pad_id)
        run["official-style"] = lambda count, steps: torch.stack(
            [loop(ids, one, steps) for ids, one in zip(prompts[:count], noise[:count], strict=True)]
        )
    for action in run.values():
        action(1, 1)
    everybody = {name: lambda action=action: action(case.batch, case.num_tokens) for name, action in run.items()}
    figures, results = in_turns(everybody, rounds, engine.model.device)
    for times in figures["contenders"].values():
        times["image_seconds"] = times["seconds"] / case.batch * FLOW_STEPS / case.num_tokens
    for name, against in figures["against"].items():
        theirs = results[name].float()
        against["difference"] = float((results["janus-batch"].float() - theirs).norm() / theirs.norm())
    return figures | {"case": asdict(case)}


def _drawings(case: Case, engine: Engine, inputs: Inputs) -> tuple[list[list[int]], Tensor]:
    """Prompts of one length, all different, and where their latents begin."""
    prompts = [inputs.drawing(case, letter=chr(ord("a") + n)) for n in range(case.batch)]
    assert isinstance(engine.model, JanusFlow)
    noise = torch.stack([draw_noise(n, engine.model.config.latent_shape) for n in range(case.batch)])
    return prompts, noise.to(engine.model.device, engine.model.dtype)


def _ours(model: Any, pad_id: int, prompts: Sequence[list[int]], noise: Tensor, num_steps: int) -> Tensor:
    lane = FlowLane(model, pad_id=pad_id, max_slots=2 * len(prompts))
    rows = [FlowRow(ids, FLOW_GUIDANCE, euler(num_steps), one) for ids, one in zip(prompts, noise, strict=True)]
    for row in rows:
        lane.scheduler.add(row)
    while not lane.is_idle:
        lane.turn()
    return torch.stack([row.latents for row in rows if row.latents is not None])


class PublishedLoop:
    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device, pad_id: int) -> None:
        model = load_model(folder, device, dtype)
        assert isinstance(model, JanusFlow)
        del model.llama.layers
        self._model, self._llama, self._pad_id = model, _their_llama(folder, model).to(device, dtype), pad_id

    @torch.inference_mode()
    def __call__(self, ids: list[int], noise_CHY: Tensor, num_steps: int, guidance: float = FLOW_GUIDANCE) -> Tensor:
        """Latents [C, H, Y] of one prompt without its last token, in whose place the time stands."""
        model, z = self._model, noise_CHY[None]
        rows = torch.tensor([ids, [ids[0], *[self._pad_id] * (len(ids) - 1)]], device=z.device)
        prompt_2PD = self._llama.embed_tokens(rows)
        mask = torch.ones(2, len(ids) + 1 + model.config.num_latent_tokens, dtype=torch.int64, device=z.device)
        mask[1, 1 : len(ids)] = 0
        size = torch.full((2, 1, 1, 1), 1 / num_steps, device=z.device, dtype=z.dtype)
        for step in range(num_steps):
            time_2 = torch.full((2,), step / num_steps * 1000, device=z.device, dtype=z.dtype)
            grid, time = model.gen_encoder(torch.cat((z, z)), time_2)
            latents = model.gen_encoder_aligner(grid.flatten(2).transpose(1, 2))
            x = torch.cat((prompt_2PD, time[:, None], latents), dim=1)
            hidden = self._llama(inputs_embeds=x, attention_mask=mask, use_cache=False).last_hidden_state
            read = model.gen_decoder_aligner(model.gen_decoder_norm(hidden[:, -latents.shape[1] :]))
            out = model.gen_decoder(read.transpose(1, 2).unflatten(2, grid.shape[2:]), grid, time)
            conditional, unconditional = out.chunk(2)
            z = z + size[:1] * (guidance * conditional - (guidance - 1) * unconditional)
        return z[0]


def _their_llama(folder: Path, model: JanusFlow) -> Any:
    from transformers import LlamaConfig, LlamaModel

    sizes = model.config.llama
    config = LlamaConfig(
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        num_key_value_heads=sizes.num_kv_heads,
        vocab_size=sizes.vocab_size,
        max_position_embeddings=model.config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        rms_norm_eps=sizes.norm_eps,
        dtype=model.dtype,
    )
    llama: Any = LlamaModel(config)
    llama.to(model.dtype).eval()
    tensors: dict[str, Tensor] = {}
    for path in find_weight_files(folder):
        names = [name for name in list_tensors(path) if name.startswith(_LLAMA)]
        tensors |= {name.removeprefix(_LLAMA): tensor for name, tensor in read_tensors(path, names)}
    llama.load_state_dict(tensors)
    return llama
