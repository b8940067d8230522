"""What this machine can do at best: how fast it reads memory, and how fast it multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_READ_BYTES = 1 << 30
_MATRIX = (2048, 2048, 5632)


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second of reading a gibibyte, the best of five."""
    values = torch.ones(_READ_BYTES // 4, dtype=torch.float32, device=device)
    return _READ_BYTES / min(_seconds(values.sum, device) for _ in range(5))


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of a product as large as a prefill's, the best of ten."""
    rows, inner, columns = _MATRIX
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype)
    product = torch.nn.functional.linear
    return 2 * rows * inner * columns / min(_seconds(lambda: product(left, right), device) for _ in range(10))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for everything the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
