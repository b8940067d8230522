"""torch's compiler, where there is one, and the kernels that are made of its programs.

Shapes: B rows, T tokens, S seen, H query heads, K key heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from janus_core.models import kernels
from janus_core.models.kernels import Heads, Kernels

P = ParamSpec("P")
T = TypeVar("T")

_PART_HEADS, _PART_QUERIES = 8, 256
"""Of attention, with queries split only where they are causal: a part then leaves out what it cannot see."""


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """For all sizes: one program, and a few more for sizes of 1 and sizes that happen to be equal.

    Each caller has its own, made in this process: torch would start one for every core, and give up after eight.
    """
    program: Callable[P, T] = torch.compile(  # type: ignore[call-overload]
        function, dynamic=True, recompile_limit=64, isolate_recompiles=True, options={"compile_threads": 1}
    )
    return program


class CompiledForHeads(Generic[T]):
    """A function whose last argument is `Heads`, with a program for each of them.

    A module's own numbers are constants to the compiler, arguments are variables: with those, `rotated_heads` took four
    times as long to compile and twice as long to run.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._programs: dict[Heads, Callable[..., T]] = {}

    def __call__(self, *arguments: Any) -> T:
        *given, heads = arguments
        program = self._programs.get(heads)
        if program is None:
            program = self._programs[heads] = compiled(_WithHeads(self._function, heads).forward)
        return program(*given)


class _WithHeads(nn.Module):
    def __init__(self, function: Callable[..., Any], heads: Heads) -> None:
        super().__init__()
        self._function, self._heads = function, heads

    def forward(self, *given: Any) -> Any:
        return self._function(*given, self._heads)


def compiled_kernels() -> Kernels:
    """Between products that stay as they are: the compiler takes no packed weights."""
    return Kernels(
        rms_norm=compiled(kernels.rms_norm),
        rotated_heads=CompiledForHeads(kernels.contiguous_heads),
        attend=PartwiseAttention(),
        attend_newest=CompiledForHeads(kernels.attend_newest),
        gated=compiled(kernels.gated),
        swish=_in_memory_order(compiled(kernels.swish_over)),
        plus=Tensor.add_,
        to_bytes=compiled(kernels.to_bytes),
        rescaled=compiled(kernels.rescaled),
    )


def _in_memory_order(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Change a map, of whatever layout, number by number."""

    def change(x: Tensor) -> Tensor:
        function(x.as_strided((x.numel(),), (1,)))
        return x

    return change


class PartwiseAttention:
    """Attention of many tokens, a few heads and queries at a time, whose scores then stay in the processor's cache.

    Twice as fast as torch's own in bfloat16 at 576 to 600 tokens. Scores and weights are rounded to the dtype, where
    torch's own keeps float32: as transformers' eager attention does it.
    """

    def __init__(self) -> None:
        self._all, self._up_to = compiled(kernels.weights_of_all), compiled(kernels.weights_up_to)
        self._where = compiled(kernels.weights_where)

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
