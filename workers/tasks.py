"""The one task."""

from __future__ import annotations

from celery import Celery

from orchestrator.transport import RUN_SHARD
from workers.runner import Runner


def register_tasks(app: Celery, runner: Runner) -> None:
    """Make `app` run shards with `runner`."""

    @app.task(name=RUN_SHARD)  # type: ignore[untyped-decorator]
    def run_shard(shard_id: int, attempt: int) -> None:
        """Run one attempt. A message holds ids only; a repeated or old one finds no lease to take."""
        runner.run(shard_id, attempt)
