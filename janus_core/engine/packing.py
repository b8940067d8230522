"""The CPU's fast step: weights laid out once for the kernels that read them, bfloat16 or int8, and compiled arithmetic.

Without packing a product reads the weights at a third to a half of the memory's speed. What is computed is the same;
roundings are fewer, as sums stay float32 up to what follows them (GELU, a residual).

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import Model
from janus_core.engine.batcher import lay_out, next_step
from janus_core.engine.cache import KVCache
from janus_core.engine.compiling import compiled, compiled_kernels
from janus_core.engine.int8 import LAID_OUT_FOR, BytesStep, Int8Linear
from janus_core.errors import DeviceUnavailable
from janus_core.models import kernels
from janus_core.models.janus import Janus
from janus_core.models.kernels import use_kernels
from janus_core.models.layers import Linear
from janus_core.models.llama import Layer

KernelChoice: TypeAlias = Literal["auto", "plain", "packed", "compiled"]
Quantize: TypeAlias = Literal["none", "int8"]

_log = logging.getLogger(__name__)

_PACKED_FROM = 1024
"""Models of this width are packed and compiled unless told otherwise. Narrower ones wait for the host, not memory."""


class PackedLinear(Linear):
    """A bfloat16 `Linear` whose weight oneDNN has laid out."""

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_parameter("bias", None)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), LAID_OUT_FOR)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._weight, self._bias, "none", [], "")
        return out

    def gelu(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "none")
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return out


@torch.inference_mode()
def make_fast(model: Model, choice: KernelChoice, quantize: Quantize) -> None:
    """Exchange what can be faster; the model can be run after this, and nothing else.

    Weights are exchanged one by one: the peak is the model and one of them. On accelerators this is the codes alone.

    Args:
        choice: see `load_engine`. Models of float32 have nothing to pack: they are here to be exact.
        quantize: "int8": the language model's layers, on the CPU; heads, tower and aligners keep their dtype.
    Raises:
        DeviceUnavailable: this device multiplies no bytes exactly.
    """
    on_cpu = model.device.type == "cpu"
    if quantize == "int8" and not (on_cpu and torch.cpu._is_vnni_supported()):
        raise DeviceUnavailable("quantize 'int8' needs a processor with AVX-512 VNNI. Use 'none' on this device.")
    if choice == "auto":
        choice = _choose(model)
    if choice != "plain" and isinstance(model, Janus):
        model.fold_codes()
        if on_cpu and model.dtype == torch.bfloat16:
            model.vq.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    is_packed = on_cpu and _pack(model, choice, quantize)
    if choice == "compiled":
        _compile(model, is_packed, quantize)


def packs_bfloat16() -> bool:
    """Whether oneDNN has products of bfloat16 for this processor."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _choose(model: Model) -> KernelChoice:
    if model.device.type != "cpu":
        return "packed"
    return "compiled" if model.dtype == torch.bfloat16 and _is_wide(model) and packs_bfloat16() else "plain"


def _is_wide(model: Model) -> bool:
    return model.config.llama.hidden_size >= _PACKED_FROM


def _pack(model: Model, choice: KernelChoice, quantize: Quantize) -> bool:
    """Whether anything was exchanged. A narrow model that is to be compiled is compiled with its products instead."""
    packs = choice == "packed" or (choice == "compiled" and (_is_wide(model) or quantize != "none"))
    packs = packs and model.dtype == torch.bfloat16 and packs_bfloat16()
    parents = [(prefix, module) for prefix, module in model.named_modules() if not isinstance(module, Linear)]
    for prefix, parent in parents:
        for name in [name for name, child in parent.named_children() if type(child) is Linear]:
            linear = parent.get_submodule(name)
            assert isinstance(linear, Linear)
            if quantize == "int8" and prefix.startswith("llama.layers."):
                setattr(parent, name, Int8Linear(linear))
            elif packs:
                setattr(parent, name, PackedLinear(linear))
    return packs or quantize != "none"


def _compile(model: Model, is_packed: bool, quantize: Quantize) -> None:
    """Small programs between packed products; of what is not packed one program for all layers, products included."""
    if is_packed:
        use_kernels(model, compiled_kernels())
        if quantize == "int8":
            model.llama.newest_through = BytesStep()
    else:
        use_kernels(model.llama, replace(kernels.PLAIN, attend_newest=kernels.attend_newest))
        model.llama.newest_through = compiled(Layer.newest)
    try:
        _run_once(model)
    except Exception as error:  # the compiler raises what it likes
        _log.warning("Steps are slower than they could be: nothing can be compiled here. Install g++ (%s).", error)
        use_kernels(model, kernels.PLAIN)
        model.llama.newest_through = Layer.newest


def _run_once(model: Model) -> None:
    """A prompt and a step, for the compiler; of unlike sizes, as equal ones would be taken for one."""
    num_rows, num_tokens = 3, 5
    cache = KVCache(model.llama.config, num_rows + 1, num_tokens + 2, model.llama.cache_dtype, model.device)
    laid = lay_out([[0] * num_tokens] * num_rows, 0, model.device)
    model.llama(model.llama.embed_tokens(laid.ids), laid.step, cache, last_B=laid.last)
    step = next_step(torch.full((num_rows,), num_tokens, device=model.device), num_tokens + 1)
    model.llama(model.llama.embed_tokens(laid.ids[:, :1]), step, cache)
