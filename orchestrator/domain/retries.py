"""What happens to a shard whose lease ran out."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    retry = "retry"  # back to waiting
    halve = "halve"  # two shards, so that one bad item cannot take the others with it
    give_up = "give_up"  # one item left: it becomes a failure, `worker_crashed`


def after_expiry(*, crashes: int, max_crashes: int, unfinished: int) -> Verdict:
    """Judge a shard after one more expired lease.

    Args:
        crashes: expired leases in a row without one newly finished item, this one included.
        max_crashes: how many are borne before the shard is halved.
        unfinished: items that no part holds yet.
    """
    if crashes < max_crashes or unfinished == 0:
        return Verdict.retry
    return Verdict.halve if unfinished > 1 else Verdict.give_up
