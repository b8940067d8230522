"""The dashboard's small rules: which paths are pages, how numbers read, what files are called, how a chart is drawn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.dashboard import formats
from orchestrator.dashboard.charts import BINS, HEIGHT, draw_throughput
from orchestrator.dashboard.paths import is_page, local_path
from orchestrator.dashboard.uploads import names_of
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.names import is_safe_name

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def scope(path: str, accept: str = "*/*", method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": [(b"accept", accept.encode())]}


def test_pages_are_told_from_the_api() -> None:
    for path in ("/", "/jobs/job_x", "/static/dashboard.css", "/sign-in", "/live/jobs"):
        assert is_page(scope(path)), path
    for path in ("/v1/jobs", "/healthz", "/openapi.json", "/metrics", "/docs", "/jobsx"):
        assert not is_page(scope(path)), path
    assert is_page(scope("/docs", accept="text/html,*/*"))
    assert not is_page(scope("/v1/jobs", accept="text/html"))
    assert not is_page(scope("/docs", accept="text/html", method="POST"))


@pytest.mark.parametrize("path", ["//x.example/", "https://x.example/", "/\\x.example", "x", "/a\nb", ""])
def test_after_signing_in_nobody_is_sent_away(path: str) -> None:
    assert local_path(path) == "/"
    assert local_path("/jobs/x?note=a") == "/jobs/x?note=a"


def test_options_read_as_words() -> None:
    given = (None, "", [], ["a cat", "red"], 0, 1.5, "heun")
    assert [formats.option(value) for value in given] == [
        "the model's own", "none", "none", "a cat, red", "0", "1.5", "heun",
    ]  # fmt: skip


def test_commands_in_a_sentence_are_code_and_nothing_else_is() -> None:
    assert formats.commands("paused: `janus jobs resume <x>` goes on & on") == (
        "paused: <code>janus jobs resume &lt;x&gt;</code> goes on &amp; on"
    )
    assert formats.commands("<b> & `") == "&lt;b&gt; &amp; <code></code>"


def test_shares_are_never_all_before_all_is_there() -> None:
    assert [formats.whole(*pair) for pair in ((0, 0), (0, 9), (1, 10**6), (999_999, 10**6), (5, 5), (1, 3))] == [
        "0%", "0%", "0.1%", "99.9%", "100%", "33%",
    ]  # fmt: skip


def test_rates_and_durations_are_easy_to_read() -> None:
    assert [formats.rate(value) for value in (None, 0, 1234.5, 2.25, 0.5, 0.002, 0.0001)] == [
        "–", "–", "1,234/s", "2.2/s", "30/min", "7.2/h", "0.36/h",
    ]  # fmt: skip
    assert [formats.duration(value) for value in (None, 0, 59.6, 3600, 90_061, 86_405)] == [
        "–", "0 s", "1 min", "1 h", "1 d 1 h", "1 d",
    ]  # fmt: skip
    times = (None, NOW, NOW - timedelta(seconds=90), NOW + timedelta(days=3))
    assert [formats.ago(moment, NOW) for moment in times] == ["never", "now", "1 min ago", "in 3 d"]


def test_files_get_names_that_differ_and_are_safe() -> None:
    files = ["a.jpg", "x/a.JPG", "C:\\b\\a.jpg", "..png", ".. .png", "a\x00b.png", "é" * 400 + ".webp"]
    names = names_of(files, taken=["a-4.jpg"])
    assert names[:3] == ["a.jpg", "a-2.jpg", "a-3.jpg"]
    assert len(set(names)) == len(files)
    assert all(is_safe_name(name) for name in names)
    for bad in ("a.exe", "a", "", ".png"):
        with pytest.raises(InvalidRequest, match="does not end like a picture"):
            names_of([bad])


def test_a_chart_is_as_high_as_its_busiest_stretch() -> None:
    counts = [0] * BINS
    counts[3], counts[10] = 20, 10
    chart = draw_throughput(counts, NOW, NOW + timedelta(seconds=BINS))
    assert chart is not None
    assert [bar.height for bar in chart.bars] == [HEIGHT, HEIGHT / 2]
    assert all(bar.y + bar.height == HEIGHT for bar in chart.bars)
    assert chart.peak == "20/s"
    assert chart.words == "Items over time: 30/min on average, 20/s at most"
    assert draw_throughput([5] + [0] * (BINS - 1), NOW, NOW + timedelta(seconds=9)) is None, "one bar says nothing"
