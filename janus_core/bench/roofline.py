"""What the machine can do, measured, and what a case needs at the least: bytes of a step, FLOPs of its prompts.

A step reads the weights that it uses and what every row's cache holds; nothing is counted for what stays in the
processor's own caches. A prompt multiplies; its attention is counted, causal as it is, and of the last layer what its
last token needs.

Source: S. Williams et al. "Roofline", CACM 52 (2009); FLOPs as 2 per multiply-add.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from janus_core.bench.cases import Case
from janus_core.bench.clock import now
from janus_core.checkpoints.load import Model
from janus_core.engine.engine import Engine
from janus_core.engine.int8 import Int8Linear
from janus_core.engine.packing import PackedLinear, packs_bfloat16
from janus_core.models.janus import Janus
from janus_core.models.layers import Linear
from janus_core.models.llama import Layer

_SECONDS = 0.4
_READ_BYTES = 1 << 29
_ROWS = (128, 512)
_SIZES = (2048, 11264)


@dataclass(frozen=True)
class Limits:
    """bandwidth: bytes read in a second. matrix_rate: FLOPs in a second, of the model's dtype."""

    bandwidth: float
    matrix_rate: float


@dataclass(frozen=True)
class Needs:
    """Of one step for all rows, and of prompts until every request has its first token.

    Of 8-bit weights the bytes alone are counted, as the rate of their products is not probed: FLOPs are 0.
    """

    step_bytes: int
    step_flops: int
    first_flops: int

    def step_seconds(self, limits: Limits) -> float:
        return max(self.step_bytes / limits.bandwidth, self.step_flops / limits.matrix_rate)

    def first_seconds(self, limits: Limits) -> float:
        return self.first_flops / limits.matrix_rate


class Prober:
    """Measures the machine again in every round, as other work on it comes and goes."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._read = torch.ones(_READ_BYTES // 4, device=device)
        inputs, outputs = _SIZES
        linear = Linear(inputs, outputs, bias=False).to(device, dtype).requires_grad_(False)
        packs = device.type == "cpu" and dtype == torch.bfloat16 and packs_bfloat16()
        self._linear = PackedLinear(linear) if packs else linear
        self._rows = [torch.ones(rows, inputs, dtype=dtype, device=device) for rows in _ROWS]

    @torch.inference_mode()
    def __call__(self) -> Limits:
        bandwidth = _READ_BYTES / self._best(self._read.sum)
        inputs, outputs = _SIZES
        rates = [2 * len(x) * inputs * outputs / self._best(partial(self._linear, x)) for x in self._rows]
        return Limits(bandwidth, max(rates))

    def _best(self, action: Callable[[], Tensor]) -> float:
        """The shortest of as many times as fit into some tenths of a second."""
        action()
        ends, best = time.perf_counter() + _SECONDS, float("inf")
        while time.perf_counter() < ends:
            began = now(self._device)
            action()
            best = min(best, now(self._device) - began)
        return best


def needs(engine: Engine, case: Case, prompt_tokens: int) -> Needs:
    """Of an average step of a case whose prompts have so many tokens; a question is about one image."""
    model = engine.model
    llama, config = model.llama, model.llama.config
    head = list(model.text_head.modules())
    rows, prompts = case.batch, case.batch
    if case.task == "generate":
        assert isinstance(model, Janus)
        head, rows, prompts = list(model.gen_head.modules()), 2 * case.batch, 2  # with and without the prompt
    seen = prompt_tokens + case.num_tokens // 2
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_size * llama.cache_dtype.itemsize
    last = llama.layers[-1]
    weights = _weights(llama.layers.modules())
    step_bytes = _weight_bytes([*llama.layers.modules(), *head]) + rows * seen * cached
    width = config.num_layers * config.num_heads * config.head_size
    step_flops = rows * (2 * weights + 2 * _weights(head) + 4 * width * seen)
    assert isinstance(last, Layer)
    prompt = (weights - _weights(last.modules()) + _weights([last.self_attn.qkv_proj])) * prompt_tokens
    reading = _image_flops(model) if case.task == "caption" else 0
    first_flops = prompts * (2 * prompt + 2 * width * prompt_tokens**2 + reading)
    is_small = isinstance(last.self_attn.qkv_proj, Int8Linear)
    return Needs(step_bytes, 0 if is_small else step_flops, 0 if is_small else first_flops)


def _image_flops(model: Model) -> int:
    siglip = model.config.siglip
    dense = (
        _weights(model.vision.modules()) + _weights(model.aligner.modules()) + 3 * siglip.patch_size**2 * siglip.width
    )
    attention = 4 * siglip.num_layers * siglip.width * siglip.num_patches
    return siglip.num_patches * (2 * dense + attention)


def _linears(modules: Iterable[nn.Module]) -> Iterable[Linear]:
    return (module for module in modules if isinstance(module, Linear))


def _weights(modules: Iterable[nn.Module]) -> int:
    return sum(linear.in_features * linear.out_features for linear in _linears(modules))


def _weight_bytes(modules: Iterable[nn.Module]) -> int:
    def size(linear: Linear) -> int:
        if isinstance(linear, Int8Linear):
            return 1
        return 2 if isinstance(linear, PackedLinear) else linear.weight.itemsize

    return sum(linear.in_features * linear.out_features * size(linear) for linear in _linears(modules))
