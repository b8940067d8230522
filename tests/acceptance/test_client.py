"""The client against real servers that hurt it: links that expire, an API that restarts, scripts that run again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from orchestrator.client import BadSource, Conflict, TransferFailed
from orchestrator.client._transfers import Transfers
from orchestrator.domain.jobs import JobState
from tests.database import own_database
from tests.system import System, running_system

pytestmark = pytest.mark.services
LINK_SECONDS = 2


@pytest.fixture(scope="module")
def hurt_system(servers: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of our own whose links expire after two seconds."""
    logs = tmp_path_factory.mktemp("hurt")
    settings = {"JANUS_PRESIGNED_URL_SECONDS": str(LINK_SECONDS)}
    with (
        own_database(servers) as given,
        running_system(given, logs, f"tiny={tiny_checkpoint}", workers=1, **settings) as started,
    ):
        yield started


def test_same_key_in_a_second_run_is_the_same_job(hurt_system: System, photos: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes((photos / "photo-00.jpg").read_bytes())
    jobs = []
    for _ in range(2):
        with hurt_system.client() as client:
            job = client.caption(tmp_path, max_tokens=4, idempotency_key="nightly")
            assert job.wait(60).items.results == 3
            jobs.append(job.id)
    assert jobs[0] == jobs[1]
    with hurt_system.client() as client:
        with pytest.raises(Conflict):
            client.caption(tmp_path, max_tokens=5, idempotency_key="nightly")
        (tmp_path / "3.jpg").write_bytes(b"another")
        with pytest.raises(BadSource, match="nightly"):
            client.caption(tmp_path, max_tokens=4, idempotency_key="nightly")


def test_sending_that_was_interrupted_goes_on_where_it_was(
    hurt_system: System, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes((photos / "photo-00.jpg").read_bytes().ljust(2**21, b"%d" % number))
    sent: list[str] = []
    put = Transfers.put_pieces

    def note(self: Transfers, url: str, *rest: Any) -> None:
        if url.partition("?")[0].endswith("manifest.jsonl") and len(sent) == 6:
            raise TransferFailed("the connection broke")
        sent.append(url.partition("?")[0].rpartition("/")[2])
        put(self, url, *rest)

    monkeypatch.setattr(Transfers, "put_pieces", note)
    with hurt_system.client() as client:
        with pytest.raises(TransferFailed):
            client.caption(tmp_path, max_tokens=4, idempotency_key="interrupted")
        assert sorted(sent) == [f"{number:09d}.jpg" for number in range(6)]
        (tmp_path / "3.jpg").write_bytes((photos / "photo-01.jpg").read_bytes().ljust(2**21, b"%d" % number))
        sent.append("broken here")
        job = client.caption(tmp_path, max_tokens=4, idempotency_key="interrupted")
        assert sent[7:] == ["000000003.jpg", "manifest.jsonl"], "what is there as it is here is not sent again"
        assert job.wait(60).items.results == 6


def test_same_key_of_a_retry_is_the_same_job(hurt_system: System, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with hurt_system.client() as client:
        job = client.caption(tmp_path)
        assert job.wait(60).items.failures == 1
        first, second = (job.retry_failures(idempotency_key="again") for _ in range(2))
        assert first.id == second.id
        assert job.retry_failures().id != first.id


def test_results_outlive_their_links(hurt_system: System) -> None:
    with hurt_system.client() as client:
        job = client.generate([f"prompt {n}" for n in range(24)], shard_items=2)
        job.wait(120)
        link, seen = job.urls(["results.jsonl"])[0], []
        for result in job.results():
            seen.append(result["index"])
            if result["index"] in (3, 17):
                time.sleep(LINK_SECONDS + 1.5)  # whoever reads takes their time; no signal says that a link expired
        with pytest.raises(TransferFailed, match="403"):
            job.transfers.get(link)
    assert seen == list(range(24))


def test_wait_and_results_outlive_a_restart_of_the_api(
    hurt_system: System, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.client._retries.FIRST_DELAY_SECONDS", 0.01)  # so that tries run out at once
    with hurt_system.client() as client:
        job = client.generate([f"prompt {n}" for n in range(80)], shard_items=5, images=2)
        for attempt in (lambda: job.wait(progress=True), lambda: list(job.results())):
            hurt_system.kill("api")
            back = Timer(4, hurt_system.run, ("api", "orchestrator.api"))
            back.start()
            attempt()
            back.join()
    assert job.view.state is JobState.completed
    assert job.view.items.results == 80
    assert capfd.readouterr().err.count("does not answer") == 1
