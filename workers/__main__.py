"""The worker process: `python -m workers`, one for each GPU."""

from __future__ import annotations

import sys

from celery.signals import setup_logging, worker_shutting_down

from orchestrator.garbage import settle
from orchestrator.metrics import serve_metrics
from orchestrator.settings import Settings, SettingsError, get_settings
from orchestrator.telemetry import configure_logging, get_logger
from orchestrator.transport import queue_of
from workers.app import create_app
from workers.engine_host import JanusCoreError
from workers.process import WorkerProcess
from workers.tasks import register_tasks


def serve(settings: Settings) -> int:
    """Load the models, then take shards until told to stop. SIGTERM flushes, gives shards back and ends."""
    if not settings.worker_models:
        print("no model to serve: set JANUS_WORKER_MODELS, or use `janus worker --model NAME`", file=sys.stderr)  # noqa: T201
        return 1
    process = WorkerProcess(settings)
    serve_metrics(settings)
    process.register()
    app = create_app(settings)
    register_tasks(app, process.runner)
    setup_logging.connect(lambda **_: None, weak=False)  # else Celery sets the level, and our lines are lost
    worker_shutting_down.connect(lambda **_: process.heartbeat.drain(), weak=False)
    settle()
    get_logger().info("worker_started", models=process.host.models)
    app.worker_main(
        [
            "worker",
            "--pool=threads",
            f"--concurrency={settings.shards_in_flight}",
            f"--queues={','.join(queue_of(model) for model in process.host.models)}",
            f"--hostname={process.worker_id}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )
    process.close()
    return 0


def main() -> int:
    try:
        settings = get_settings()
        configure_logging(settings.log_level, hidden=settings.secret_texts(), process="worker")
        return serve(settings)
    except (SettingsError, JanusCoreError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
