"""Python's collector of garbage, in processes that live long and hold a lot from their start."""

from __future__ import annotations

import gc

THRESHOLDS = (10_000, 10, 10)
"""Of `gc.set_threshold`. Requests and rows come by the thousand and go by themselves, as hardly any is in a cycle."""


def settle() -> None:
    """Look once more at what the process has loaded, and then never again: modules and models stay.

    To be called when it is ready to work. Without it each full collection goes through every object of every module,
    torch's too, while nothing else runs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
