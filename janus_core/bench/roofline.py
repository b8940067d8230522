"""What the machine can do, measured, and what a case needs at the least: bytes of a step, FLOPs of its prompts.

A step reads the weights that it uses and what every row's cache holds; nothing is counted for what stays in the
processor's own caches. A prompt multiplies; its attention is counted, causal as it is.

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
from janus_core.engine.packing import PackedLinear
from janus_core.models.janus import Janus
from janus_core.models.layers import Linear

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
    """step_bytes: of one step for all rows. first_flops: until every request has its first token."""

    step_bytes: int
    first_flops: int


class Prober:
    """Measures the machine again in every round, as other work on it comes and goes."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._read = torch.ones(_READ_BYTES // 4, device=device)
        inputs, outputs = _SIZES
        linear = Linear(inputs, outputs, bias=False).to(device, dtype).requires_grad_(False)
        packs = device.type == "cpu" and dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
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


def needs(engine: Engine, case: Case, prompt_tokens: int, images: int) -> Needs:
    """Of an average step of a case whose prompts have so many tokens, with so many images in each question."""
    model = engine.model
    llama, config = model.llama, model.llama.config
    head: Iterable[nn.Module] = model.text_head.modules()
    rows, prompts = case.batch, case.batch
    if case.task == "generate":
        assert isinstance(model, Janus)
        head, rows, prompts = model.gen_head.modules(), 2 * case.batch, 2  # with and without the prompt
    seen = prompt_tokens + case.num_tokens // 2
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_size * llama.cache_dtype.itemsize
    step_bytes = _weight_bytes(llama.layers.modules()) + _weight_bytes(head) + rows * seen * cached
    attention = 2 * config.num_layers * config.num_heads * config.head_size * prompt_tokens**2
    reading = images * _image_flops(model) if case.task == "caption" else 0
    flops = prompts * (2 * _weights(llama.layers.modules()) * prompt_tokens + attention + reading)
    return Needs(step_bytes, flops)


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
