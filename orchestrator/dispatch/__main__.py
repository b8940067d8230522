"""The dispatcher process: four readers and finishers, and one each of the other duties, a thread for every one."""

from __future__ import annotations

import signal
import sys

from orchestrator.artifacts import open_places, open_store
from orchestrator.artifacts.base import ObjectStore
from orchestrator.db.session import SessionFactory, connect, session_factory
from orchestrator.db.watching import DISPATCHER
from orchestrator.dispatch.broker import CeleryBroker
from orchestrator.dispatch.cleaner import Cleaner
from orchestrator.dispatch.collector import Collector, EveryHours
from orchestrator.dispatch.deliverer import Deliverer
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.finisher import Finisher
from orchestrator.dispatch.loops import Loops
from orchestrator.dispatch.meter import Meter
from orchestrator.dispatch.observer import Observer
from orchestrator.dispatch.openai_cleaner import OpenaiCleaner
from orchestrator.dispatch.openai_finisher import OpenaiFinisher
from orchestrator.dispatch.openai_reader import LineLimits, OpenaiReader
from orchestrator.dispatch.reader import Reader
from orchestrator.dispatch.reaper import Reaper
from orchestrator.dispatch.reconciler import Reconciler
from orchestrator.dispatch.reporter import Reporter
from orchestrator.domain.jobs import JobKind
from orchestrator.garbage import settle
from orchestrator.metrics import serve_metrics, watch_connections
from orchestrator.settings import Settings, SettingsError, get_settings
from orchestrator.telemetry import configure_logging, get_logger


def start_loops(settings: Settings) -> Loops:
    """Start every duty of the dispatcher."""
    url = settings.database_url.get_secret_value()
    engine = connect(url, pool_size=25, statement_timeout_seconds=120, name=DISPATCHER)
    watch_connections(engine)
    sessions = session_factory(engine)
    store, places = open_store(settings), open_places(settings)
    broker = CeleryBroker(settings)
    loops = Loops(sessions, pause_seconds=settings.loop_seconds)
    for number in (1, 2, 3, 4):  # a job with a million items must not hold up everybody else's
        reader = Reader(
            sessions,
            store,
            max_item_line_bytes=settings.max_item_line_bytes,
            max_manifest_bytes=settings.max_manifest_bytes,
            allow_image_urls=settings.allow_image_urls,
            places=places,
        )
        pause = settings.loop_seconds * (1 if number == 1 else 4)  # the others are for when the first one is busy
        loops.start(f"reader-{number}", reader, every_seconds=pause)
        loops.start(f"finisher-{number}", Finisher(sessions, store), every_seconds=pause)
    loops.start("dispatcher", Dispatcher(sessions, broker, queue_depth=settings.queue_depth))
    loops.start("reaper", Reaper(sessions, store, max_crashes=settings.max_crashes), every_seconds=1)
    reconciler = Reconciler(sessions, broker, republish_seconds=settings.republish_seconds)
    loops.start("reconciler", reconciler, every_seconds=min(2.0, settings.republish_seconds))
    cleaner = Cleaner(sessions, store, keep_days=settings.keep_days, reuse_days=settings.reuse_days)
    loops.start("cleaner", cleaner, every_seconds=2)
    deliverer = Deliverer(sessions, seconds=settings.webhook_seconds, allow_private=settings.allow_private_webhooks)
    loops.start("deliverer", deliverer, every_seconds=1)
    loops.start("meter", Meter(sessions, store), every_seconds=5)
    loops.start("reporter", Reporter(sessions), every_seconds=5)
    _start_openai(loops, settings, sessions, store)
    if settings.collect_hours:
        collector = Collector(sessions, store, presigned_url_seconds=settings.presigned_url_seconds)
        loops.start("collector", EveryHours(collector, settings.collect_hours), every_seconds=1)
    if settings.metrics_port:
        loops.start("observer", Observer(sessions, broker), every_seconds=10)
    return loops


def _start_openai(loops: Loops, settings: Settings, sessions: SessionFactory, store: ObjectStore) -> None:
    limits = LineLimits(settings.max_openai_lines, settings.max_openai_line_bytes, settings.max_image_bytes)
    shard_items = {JobKind.caption: settings.shard_items_caption, JobKind.generate: settings.shard_items_generate}
    reader = OpenaiReader(sessions, store, limits=limits, shard_items=shard_items)
    loops.start("openai-reader", reader, every_seconds=settings.loop_seconds)
    finisher = OpenaiFinisher(sessions, store, link_seconds=settings.openai_link_seconds)
    loops.start("openai-finisher", finisher, every_seconds=settings.loop_seconds)
    loops.start("openai-cleaner", OpenaiCleaner(sessions, store, keep_days=settings.keep_days), every_seconds=2)


def main() -> int:
    try:
        settings = get_settings()
        configure_logging(settings.log_level, hidden=settings.secret_texts(), process="dispatcher")
        serve_metrics(settings)
        loops = start_loops(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loops.request_stop())
    settle()
    get_logger().info("dispatcher_started")
    loops.wait()
    loops.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
