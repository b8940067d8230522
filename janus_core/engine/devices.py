"""The device and dtype that a model runs on, and the memory that is left there."""

from __future__ import annotations

from pathlib import Path

import torch

from janus_core.errors import DeviceUnavailable


def choose_device(device: str) -> torch.device:
    """ "auto" is the first of cuda, mps and cpu that is there. Raises DeviceUnavailable."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceUnavailable(f"device {device!r} cannot be used here: {error}") from error


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype | None:
    """ "auto" is bfloat16 on an accelerator, and None on the CPU: the checkpoint's own. Raises DeviceUnavailable."""
    if dtype == "auto":
        return None if device.type == "cpu" else torch.bfloat16
    if dtype not in ("float32", "bfloat16"):
        raise DeviceUnavailable(f"dtype {dtype!r} is not served; use 'float32' or 'bfloat16' (float16 overflows)")
    return torch.float32 if dtype == "float32" else torch.bfloat16


def prefill_tokens(device: torch.device) -> int:
    """Most tokens of prompts in one pass: on a CPU those that stay in its cache, of seconds not minutes."""
    return 1024 if device.type == "cpu" else 4096


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; otherwise that of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 8 << 30  # no Linux: assume a small machine
