"""When a disk is nearly full."""

from __future__ import annotations

SMALLEST_SHARE = 0.1
ENOUGH_BYTES = 20 * 2**30  # a tenth of a very large disk is no reason to wake anybody


def is_nearly_full(total_bytes: int, free_bytes: int) -> bool:
    """Less than a tenth is free, and less than 20 GiB."""
    return free_bytes < SMALLEST_SHARE * total_bytes and free_bytes < ENOUGH_BYTES
