"""The time on the clock once a device has done what it was asked for."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Seconds. An accelerator works behind the host's back: without waiting for it, nothing would be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
