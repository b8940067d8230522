"""What is counted, and the port where it is read."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from orchestrator import telemetry
from orchestrator.api.metrics import Watched
from orchestrator.metrics import serve_metrics, set_all
from orchestrator.settings import Settings, SettingsError
from tests.system import free_port
from tests.unit.test_engine_host import GatedEngine
from workers import metrics
from workers.engine_host import EngineHost, GenerateRequest

NEEDED = {"database_url": "x", "redis_url": "x", "s3_endpoint": "x", "s3_access_key": "x", "s3_secret_key": "x"}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as a process would log it."""
    telemetry.configure_logging("info", process="test")
    written = io.StringIO()
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    logging.getLogger().handlers.clear()


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_processes_of_one_machine_take_the_next_free_port() -> None:
    first = free_port()
    settings = Settings(**NEEDED, metrics_port=first)
    ports = [serve_metrics(settings), serve_metrics(settings)]
    assert ports[0] == first
    assert ports[1] is not None
    assert ports[1] > first
    for port in ports:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"janus_items_total" in answer.read()
    assert serve_metrics(Settings(**NEEDED)) is None, "off unless asked for"
    with pytest.raises(SettingsError, match=r"JANUS_METRICS_HOST=192\.0\.2\.1"):
        serve_metrics(Settings(**NEEDED, metrics_port=first, metrics_host="192.0.2.1"))


def test_series_of_what_is_gone_are_removed() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "G.", ["model", "state"], registry=registry)
    set_all(gauge, {("a", "x"): 1, ("b", "x"): 2})
    set_all(gauge, {("b", "x"): 3})
    assert registry.get_sample_value("g", {"model": "a", "state": "x"}) is None
    assert registry.get_sample_value("g", {"model": "b", "state": "x"}) == 3


def test_requests_are_counted_by_route_template_and_logged_with_who_asked(log: io.StringIO) -> None:
    router = APIRouter(prefix="/v1")

    @router.get("/things/{thing_id}")
    def thing(thing_id: str, request: Request) -> str:
        request.state.request_id, request.state.team = "req_1", "team_1"
        if thing_id == "bad":
            raise RuntimeError("bad")
        return thing_id

    app = FastAPI()
    app.include_router(router)
    app.add_middleware(Watched)
    client = TestClient(app, raise_server_exceptions=False)
    before = value("janus_http_requests_total", method="GET", route="/v1/things/{thing_id}", status="200")
    for path in ("/v1/things/1", "/v1/things/2", "/v1/things/bad", "/v1/nothing", "/v1/else"):
        client.get(path)
    route = "/v1/things/{thing_id}"
    assert value("janus_http_requests_total", method="GET", route=route, status="200") == before + 2
    assert value("janus_http_requests_total", method="GET", route=route, status="500") >= 1
    assert value("janus_http_requests_total", method="GET", route="none", status="404") >= 2
    assert value("janus_http_request_seconds_count", method="GET", route=route) >= 3
    assert value("janus_http_requests_in_flight") == 0
    first = next(line for line in lines(log) if line["event"] == "request")
    assert {
        "route": route,
        "status": 200,
        "request_id": "req_1",
        "team": "team_1",
        "process": "test",
    }.items() <= first.items()


def test_fields_are_bound_for_a_block_and_carried_into_its_threads(log: io.StringIO) -> None:
    with telemetry.bound(shard=7, attempt=2):
        carry = telemetry.carried()
        telemetry.get_logger().info("here")

        def elsewhere() -> None:
            carry()
            logging.getLogger("urllib3").warning("a library's line")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    telemetry.get_logger().info("after")
    here, library, after = lines(log)
    assert (here["shard"], here["attempt"], library["shard"], library["attempt"]) == (7, 2, 7, 2)
    assert "shard" not in after
    assert after["process"] == "test"


def test_engine_turns_rows_and_answers_are_counted() -> None:
    engine = GatedEngine()
    host = EngineHost({"counted": engine})
    metrics.TURNS.labels("counted")
    first = host.prepare("counted", [GenerateRequest(prompt="1")])
    host.submit([first])
    assert engine.begun.wait(5)
    others = host.prepare("counted", [GenerateRequest(prompt="2"), GenerateRequest(prompt="3")])
    host.submit([others])
    engine.gate.set()
    first.answers.result(5)
    others.answers.result(5)
    host.close()
    assert value("janus_engine_turns_total", model="counted") == len(engine.turns) == 2
    assert value("janus_engine_row_turns_total", model="counted") == 3
    assert value("janus_engine_turn_seconds_total", model="counted") > 0
    assert host.num_running("counted") == host.num_waiting("counted") == 0
