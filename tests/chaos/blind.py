"""Guards switched off, to see that the checker sees: `make chaos BLIND=1`. Only processes of a storm know how."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any


def switch_off(guard: str) -> None:
    """`reaper`, `reconciler` or `fence`."""
    {"reaper": _reaper_off, "reconciler": _reconciler_off, "fence": _fence_off}[guard]()


def _reaper_off() -> None:
    from orchestrator.dispatch.reaper import Reaper

    Reaper.run_once = lambda self, now: 0  # type: ignore[method-assign]


def _reconciler_off() -> None:
    from orchestrator.dispatch.reconciler import Reconciler

    Reconciler.run_once = lambda self, now: 0  # type: ignore[method-assign]


def _fence_off() -> None:
    """Writes of an attempt ask no more whether it still holds the shard, and nobody tells it that it does not."""
    from orchestrator.db import events, leases, shards
    from orchestrator.db.tables import ShardRow

    def append_part(
        session: Any, shard_id: int, attempt: int, part: Any, failures: Any, identities: Any = MappingProxyType({})
    ) -> None:
        shard = session.get_one(ShardRow, shard_id, with_for_update=True)
        shard.parts = [*shard.parts, part.as_json()]
        shard.num_results += part.num_results
        shard.num_failures += part.num_failures
        shard.num_reused += part.num_reused
        shards.insert_failures(session, shard.job_id, failures)

    def fenced(session: Any, shard_id: int, attempt: int, **values: Any) -> tuple[str, int]:
        shard = session.get_one(ShardRow, shard_id, with_for_update=True)
        for name, value in values.items():
            setattr(shard, name, value)
        events.record(session, "shard.unfenced", job_id=shard.job_id, shard_id=shard_id, attempt=attempt)
        return shard.job_id, 0

    leases.append_part, leases._fenced = append_part, fenced
    leases.find_stops = lambda session, held: {}
