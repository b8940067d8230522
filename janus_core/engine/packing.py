"""The CPU's fast step: weights laid out once for the kernels that read them, bfloat16 or int8, and compiled arithmetic.

Without packing a product reads the weights at a third to a half of the memory's speed. What is computed is the same;
roundings are fewer, as sums stay float32 up to what follows them (GELU, a residual).

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product
from typing import Literal, ParamSpec, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import Model
from janus_core.errors import DeviceUnavailable
from janus_core.models import kernels
from janus_core.models.janus import Janus
from janus_core.models.kernels import Fused, Kernels, use_kernels
from janus_core.models.layers import Linear

KernelChoice: TypeAlias = Literal["auto", "plain", "packed", "compiled"]
Quantize: TypeAlias = Literal["none", "int8"]

_log = logging.getLogger(__name__)

_ROWS = 16
"""What weights are laid out for. From 1 to 2400 rows no other choice was faster (two cores of an AMD EPYC)."""

_COMPILED_FROM = 1024
"""Models of this width are compiled unless told otherwise: for small ones the wait at start outweighs it."""


_PART_HEADS, _PART_QUERIES = 8, 256
"""Of attention, with queries split only where they are causal: a part then leaves out what it cannot see."""

P = ParamSpec("P")
T = TypeVar("T")


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


class Int8Linear(Fused, Linear):
    """A weight of 8 bits with a scale per output; inputs are brought to 8 bits row by row, sums are exact.

    So a row's product does not depend on the others beside it.
    """

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_OI = linear.weight.detach().float()
        self._scales_O = (weight_OI.abs().amax(1) / 127).clamp_min(1e-12)
        rounded_OI = (weight_OI / self._scales_O[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded_OI, [_ROWS, self.in_features])
        self._zeros_O = torch.zeros(self.out_features, dtype=torch.int64)
        self._bias_O = torch.zeros(()) if linear.bias is None else linear.bias.detach().float()

    def forward(self, input: Tensor) -> Tensor:
        rows_NI, level_N1 = self.kernels.to_bytes(input.flatten(0, -2))
        products_NO = torch.ops.onednn.qlinear_pointwise(
            rows_NI, 1.0, 128, self._weight, self._scales_O, self._zeros_O, None, 1.0, 0, input.dtype, "none", [], ""
        )
        return self.kernels.rescaled(products_NO, level_N1, self._bias_O).view(*input.shape[:-1], -1)


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
    if on_cpu and (choice != "plain" or quantize != "none"):
        _pack(model, quantize)
    if on_cpu and choice == "compiled" and (compiled := _compile()) is not None:
        use_kernels(model, compiled)


def _choose(model: Model) -> KernelChoice:
    if model.device.type != "cpu":
        return "packed"
    is_large = model.dtype == torch.bfloat16 and model.config.llama.hidden_size >= _COMPILED_FROM
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


def _compile() -> Kernels | None:
    torch._inductor.config.compile_threads = 1  # else it starts a process for every core
    made = Kernels(
        rms_norm=_compiled(kernels.rms_norm),
        rotated_heads=_compiled(kernels.contiguous_heads),
        attend=_PartwiseAttention(),
        attend_newest=_compiled(kernels.attend_newest),
        gated=_compiled(kernels.gated),
        swish=_in_memory_order(_compiled(kernels.swish_over)),
        plus=Tensor.add_,
        to_bytes=_compiled(kernels.to_bytes),
        rescaled=_compiled(kernels.rescaled),
    )
    try:
        made.gated(torch.zeros(2, 64, dtype=torch.bfloat16))
    except Exception as error:  # it raises what it likes when there is no compiler
        _log.warning("Steps are slower than they could be: nothing can be compiled here. Install g++ (%s).", error)
        return None
    return made


def _compiled(function: Callable[P, T]) -> Callable[P, T]:
    """For all sizes at once."""
    return torch.compile(function, dynamic=True)


def _in_memory_order(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Change a map, of whatever layout, number by number."""

    def change(x: Tensor) -> Tensor:
        function(x.as_strided((x.numel(),), (1,)))
        return x

    return change


class _PartwiseAttention:
    """Attention of many tokens, a few heads and queries at a time, whose scores then stay in the processor's cache.

    Twice as fast as torch's own in bfloat16 at 576 to 600 tokens; weights are rounded to the dtype, as they are there.
    """

    def __init__(self) -> None:
        self._all, self._up_to = _compiled(kernels.weights_of_all), _compiled(kernels.weights_up_to)
        self._where = _compiled(kernels.weights_where)

    def __call__(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        """As `kernels.attend`."""
        num_rows, num_heads, num_tokens, size = q_BHTE.shape
        if num_heads != k_BKSE.shape[1]:
            return kernels.attend(q_BHTE, k_BKSE, v_BKSE, mask, is_causal)
        mixed_BTHE = q_BHTE.new_empty(num_rows, num_tokens, num_heads, size)
        part = _PART_QUERIES if is_causal else num_tokens
        for row, head, first in product(range(num_rows), range(0, num_heads, _PART_HEADS), range(0, num_tokens, part)):
            heads, queries = slice(head, head + _PART_HEADS), slice(first, first + part)
            keys = slice(first + part if is_causal else None)
            scores = q_BHTE[row, heads, queries] @ k_BKSE[row, heads, keys].transpose(1, 2)
            if is_causal:
                weights = self._up_to(scores, size**-0.5, first)
            elif mask is None:
                weights = self._all(scores, size**-0.5)
            else:
                weights = self._where(scores, size**-0.5, mask[row, :, queries])
            mixed_BTHE[row, queries, heads] = (weights @ v_BKSE[row, heads, keys]).transpose(0, 1)
        return mixed_BTHE.flatten(2)
