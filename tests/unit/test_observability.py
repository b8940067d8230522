"""What we count, what the dashboard and the alerts ask for, and what the page describes are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from promql_parser import AggModifierType, AggregateExpr, VectorSelector

from orchestrator import metrics as shared
from orchestrator.api import metrics as api
from orchestrator.dispatch import metrics as dispatcher
from workers import metrics as worker

FOLDER = Path(__file__).parents[2] / "docs" / "observability"
PAGE = FOLDER.with_suffix(".md").read_text(encoding="utf-8")
PROCESSES = {"API": api, "dispatcher": dispatcher, "worker": worker, "all": shared}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
GIVEN_BY_PROMETHEUS = frozenset({"job", "instance"})
FOREIGN = {  # of Prometheus, node_exporter and dcgm-exporter
    "up": set(),
    "process_resident_memory_bytes": set(),
    "node_filesystem_avail_bytes": {"mountpoint", "fstype"},
    "node_filesystem_size_bytes": {"mountpoint", "fstype"},
    "DCGM_FI_DEV_XID_ERRORS": {"gpu"},
}


def ours() -> dict[str, tuple[str, MetricWrapperBase]]:
    """Every metric of ours by its name on the wire, with the process that has it."""
    found = {}
    for process, module in PROCESSES.items():
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                ending = "_total" if metric._type == "counter" else ""
                found[metric._name + ending] = process, metric
    return found


def series() -> dict[str, set[str]]:
    """Labels by the name of what a query may select."""
    labels: dict[str, set[str]] = {name: set(given) for name, given in FOREIGN.items()}
    for _, metric in ours().values():
        for suffix in SUFFIXES[metric._type]:
            extra = {"le"} if suffix == "_bucket" else set()
            labels[metric._name + suffix] = {*metric._labelnames, *extra}
    return {name: found | GIVEN_BY_PROMETHEUS for name, found in labels.items()}


def queries() -> Iterator[tuple[str, str]]:
    """(where, expression) of every alert and panel."""
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"].replace("$__rate_interval", "1m")


def parts(expression: Any) -> Iterator[Any]:
    """An expression and everything inside it."""
    yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inner = getattr(expression, name, None)
        if inner is not None:
            yield from parts(inner)
    for argument in getattr(expression, "args", ()):
        yield from parts(argument)


def problems(query: str) -> list[str]:
    """Metrics and labels of a query that do not exist."""
    known, found = series(), []
    for part in parts(promql_parser.parse(query)):
        if isinstance(part, VectorSelector):
            if part.name not in known:
                found.append(f"no metric {part.name}")
                continue
            asked = {matcher.name for matcher in part.matchers.matchers}
            found += [f"{part.name} has no label {label}" for label in asked - known[part.name]]
        elif isinstance(part, AggregateExpr) and part.modifier and part.modifier.type == AggModifierType.By:
            inside = [known.get(inner.name, set()) for inner in parts(part.expr) if isinstance(inner, VectorSelector)]
            found += [
                f"nothing to group by {label}" for label in part.modifier.labels if label not in set().union(*inside)
            ]
    return found


@pytest.mark.parametrize(("where", "query"), [pytest.param(*q, id=f"{n}") for n, q in enumerate(queries())])
def test_query_parses_and_asks_for_what_exists(where: str, query: str) -> None:
    assert not problems(query), where


def test_a_query_for_what_does_not_exist_is_noticed() -> None:
    assert problems("sum(janus_nothing)") == ["no metric janus_nothing"]
    assert problems('rate(janus_items_total{team="a"}[5m])') == ["janus_items_total has no label team"]
    assert problems("sum by (job_id) (janus_jobs)") == ["nothing to group by job_id"]
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(janus_jobs")


def test_every_metric_is_on_the_page_with_its_labels_and_on_the_dashboard_or_in_an_alert() -> None:
    rows = re.findall(r"^\| `(janus_\w+)` \|(.*?)\|(.*?)\|", PAGE, re.MULTILINE)
    written = {name: (re.findall(r"`(\w+)`", labels), process.strip()) for name, labels, process in rows}
    assert written == {name: (list(metric._labelnames), process) for name, (process, metric) in ours().items()}
    asked = {
        part.name for _, q in queries() for part in parts(promql_parser.parse(q)) if isinstance(part, VectorSelector)
    }
    unused = {n for n, (_, m) in ours().items() if not {m._name + suffix for suffix in SUFFIXES[m._type]} & asked}
    assert not unused


def test_names_follow_the_conventions_and_no_label_is_unbounded() -> None:
    for name, (_, metric) in ours().items():
        assert re.fullmatch(r"janus_[a-z_]+", name)
        assert not re.search(r"_(ms|millis|minutes|mb|kb|percent)(_|$)", name), f"{name}: seconds, bytes and ratios"
        assert metric._documentation.endswith("."), name
        assert not {"team", "key", "shard", "item", "worker", "job"} & set(metric._labelnames), name
    assert {family.name for family in REGISTRY.collect() if family.name.startswith("janus_")} >= {
        metric._name for _, metric in ours().values()
    }


def test_alerts_and_dashboard_are_of_their_form() -> None:
    rules = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "do"}
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    scrapes = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert scrapes["rule_files"] == ["alerts.yml"]
    names = {config["job_name"] for config in scrapes["scrape_configs"]}
    (asked,) = re.findall(r'job=~"([^"]*)"', (FOLDER / "alerts.yml").read_text())
    assert {name for name in names if re.fullmatch(asked, name)} >= {"janus-api", "janus-dispatcher", "janus-worker"}
