"""Hostile files and URLs through the whole system: each costs its own item."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hostile_images import make_images
from tests.system import System, running_system
from tests.unit.test_images import encode, picture
from tests.unit.test_url_fetch import Server, redirect_to
from tests.url_worker import OURS

pytestmark = pytest.mark.services

URL_CODES = {
    "http://127.0.0.1/a.png": "url_refused",
    "http://169.254.169.254/latest/meta-data/": "url_refused",
    "http://[fd00:ec2::254]/": "url_refused",
    "http://inner.test/a.png": "url_refused",
    "http://mixed.test/a.png": "url_refused",
    "http://pictures.test:6379/": "url_refused",
    "file:///etc/passwd": "url_refused",
    "http://nowhere.test/a.png": "url_unreachable",
}


def test_hostile_files_cost_their_own_items_and_no_worker(system: System, tmp_path: Path) -> None:
    files = list(make_images(seed=23))[::15]
    assert len(files) >= 30
    for number, (_, data) in enumerate(files):
        (tmp_path / f"{number:03d}.png").write_bytes(data)
    (tmp_path / "good.png").write_bytes(encode(picture(), "PNG"))
    with system.client() as client:
        job = client.caption(tmp_path, max_tokens=4)
        job.wait(120)
        results = list(job.results())
        events = [event.type for event in job.events()]
        assert job.verify().ok
    names = {f"{number:03d}.png": name for number, (name, _) in enumerate(files)}
    assert [result["id"] for result in results] == [*names, "good.png"]
    for result in results:
        code = result.get("failure", {}).get("code")
        assert code in (None, "image_unreadable", "image_too_large"), (names.get(result["id"]), result)
    assert "caption" in results[-1]
    assert 0 < sum("failure" in result for result in results) < len(results)
    assert not {"shard.lease_expired", "shard.crashed", "shard.halved", "shard.released"} & set(events)
    assert all(process.poll() is None for process in system.processes.values())


def test_urls_are_refused_where_nobody_allowed_them(system: System, tmp_path: Path) -> None:
    manifest = tmp_path / "urls.jsonl"
    (tmp_path / "good.png").write_bytes(encode(picture(), "PNG"))
    lines = [{"image": "https://example.org/a.png"}, {"id": "mixed", "image": ["good.png", "http://8.8.8.8/"]}]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"image": "good.png"}]))
    with system.client() as client:
        job = client.caption(manifest, max_tokens=4)
        job.wait(60)
        refused = list(job.failures())
        good = list(job.results())[-1]
    assert [(failure.id, failure.code) for failure in refused] == [
        ("https://example.org/a.png", "url_refused"),
        ("mixed", "url_refused"),
    ]
    assert all("JANUS_ALLOW_IMAGE_URLS" in failure.message for failure in refused)
    assert "caption" in good


def test_urls_are_fetched_where_they_are_allowed(
    environment: dict[str, str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """In a database of its own: the other system's readers refuse URLs."""
    data = encode(picture(), "PNG")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    elsewhere = redirect_to("http://169.254.169.254/latest/meta-data/")
    pictures = Server(lambda head, _: elsewhere if b"/elsewhere" in head else answer, OURS)
    inner = Server(lambda *_: answer, "127.0.0.1")
    base = f"http://pictures.test:{pictures.port}"
    codes: dict[str, str | None] = {
        f"{base}/a.png": None,
        f"{base}/elsewhere": "url_refused",
        f"http://localhost:{inner.port}/": "url_unreachable",  # not in this worker's table of names
        f"http://127.0.0.1:{inner.port}/": "url_refused",
        f"http://inner.test:{inner.port}/": "url_refused",
        **URL_CODES,
    }
    manifest = tmp_path / "urls.jsonl"
    (tmp_path / "good.png").write_bytes(data)
    both = {"id": "both", "image": ["good.png", f"{base}/b.png"], "prompt": "<image_placeholder><image_placeholder>?"}
    lines = [*({"image": url} for url in codes), both]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "JANUS_ALLOW_IMAGE_URLS": "true",
        "JANUS_IMAGE_URL_PORTS": f"80,443,{pictures.port},{inner.port}",
    }
    models = f"fetching={tiny_checkpoint}"
    with running_system(environment, tmp_path / "logs", models, workers=0, **settings) as system:
        system.run("worker", "tests.url_worker")
        system.wait_for_workers(1)
        with system.client() as client:
            job = client.caption(manifest, model="fetching", max_tokens=4)
            job.wait(60)
            results = list(job.results())
            assert job.verify().ok
    pictures.close()
    inner.close()
    got = {result["id"]: result.get("failure", {}).get("code") for result in results}
    assert got == codes | {"both": None}
    assert inner.connections == 0
