"""The CPU's fast step: weights laid out once for the kernels that read them, bfloat16 or int8, and compiled arithmetic.

Without packing a product reads the weights at a third to a half of the memory's speed. What is computed is the same;
roundings are fewer, as sums stay float32 up to what follows them (GELU, a residual).

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import Model
from janus_core.engine.compiling import can_compile, compiled, compiled_kernels
from janus_core.engine.int8 import BytesStep, Int8Linear
from janus_core.errors import DeviceUnavailable
from janus_core.models import kernels
from janus_core.models.janus import Janus
from janus_core.models.kernels import use_kernels
from janus_core.models.layers import Linear
from janus_core.models.llama import Layer

KernelChoice: TypeAlias = Literal["auto", "plain", "packed", "compiled"]
Quantize: TypeAlias = Literal["none", "int8"]

_ROWS = 16
"""What weights are laid out for. From 1 to 2400 rows no other choice was faster (two cores of an AMD EPYC)."""

_PACKED_FROM = 1024
"""Models of this width are packed and compiled unless told otherwise. Narrower ones wait for the host, not memory."""


class PackedLinear(Linear):
    """A bfloat16 `Linear` whose weight oneDNN has laid out."""

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
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
        if model.dtype == torch.bfloat16:
            model.vq.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    packs = on_cpu and model.config.llama.hidden_size >= _PACKED_FROM
    if on_cpu and (choice == "packed" or quantize != "none" or (choice == "compiled" and packs)):
        _pack(model, quantize)
    if choice == "compiled" and can_compile():
        if packs or quantize != "none":
            use_kernels(model, compiled_kernels())
            if quantize == "int8":
                model.llama.newest_through = BytesStep()
        else:
            _compile_layers(model)


def _choose(model: Model) -> KernelChoice:
    if model.device.type != "cpu":
        return "packed"
    is_large = model.dtype == torch.bfloat16 and model.config.llama.hidden_size >= _PACKED_FROM
    return "compiled" if is_large else "plain"


def _pack(model: Model, quantize: Quantize) -> None:
    packs = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    parents = [(prefix, module) for prefix, module in model.named_modules() if not isinstance(module, Linear)]
    for prefix, parent in parents:
        for name in [name for name, child in parent.named_children() if type(child) is Linear]:
            linear = parent.get_submodule(name)
            assert isinstance(linear, Linear)
            if quantize == "int8" and prefix.startswith("llama.layers."):
                setattr(parent, name, Int8Linear(linear))
            elif packs and linear.weight.dtype == torch.bfloat16:
                setattr(parent, name, PackedLinear(linear))


def _compile_layers(model: Model) -> None:
    """One program for all layers of a step, products included."""
    use_kernels(model.llama, replace(kernels.PLAIN, attend_newest=kernels.attend_newest))
    model.llama.newest_through = compiled(Layer.newest)
