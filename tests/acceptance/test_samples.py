"""A sample first: looked at, approved, and nothing of it computed twice; counted at the engine, on the whole system."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from orchestrator.client import Conflict, Job
from orchestrator.domain.jobs import JobState
from orchestrator.domain.strata import draw_indexes
from tests.acceptance.test_reuse import Counted, colours
from tests.chaos.engine import BOOK, STEP
from tests.database import operators_view, own_database
from tests.system import System

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def world(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """One system for all of them: a worker whose engine counts, and a folder of the store that is open."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "logs").mkdir()
    book = folder / "book"
    with own_database(servers) as environment:
        settings = {BOOK: str(book), STEP: "0", "JANUS_INPUT_BUCKETS": f"{environment['JANUS_S3_BUCKET']}/shared/"}
        system = System(environment, folder / "logs", "chaos", **settings)
        try:
            system.run("api", "orchestrator.api")
            system.run("dispatcher", "orchestrator.dispatch")
            made = Counted(system, book, team="operators")
            made.start_worker("worker")
            yield made
            made.client.close()
        finally:
            system.stop()


def computed_since(world: Counted, before: int) -> int:
    return world.computed - before


def test_an_approved_upload_computes_what_the_sample_has_not(world: Counted, tmp_path: Path) -> None:
    photos, before = colours(tmp_path / "photos", 0, 200), world.computed
    sample = world.client.caption(photos, prompt="what one", temperature=0.5, seed=5, sample=20)
    tried = world.finish(sample)
    drawn = list(draw_indexes(200, 20, 5))
    assert computed_since(world, before) == 20
    assert [(line["index"], line["id"], line["seed"]) for line in tried] == [
        (place, f"{index:05d}.png", 5 + index) for place, index in enumerate(drawn)
    ]
    assert (sample.view.sample, sample.view.sample_total, sample.view.waits_for_approval) == (20, 200, True)
    assert "janus jobs approve" in (sample.view.waiting_reason or "")
    whole = sample.approve()
    lines = world.finish(whole)
    assert computed_since(world, before) == 200
    assert (whole.view.items.total, whole.view.items.reused) == (200, 20)
    assert [lines[index] | {"index": place} for place, index in enumerate(drawn)] == tried
    assert (whole.view.sample, whole.view.sampled_by, whole.view.name) == (None, sample.id, sample.view.name)
    view = sample.refresh()
    assert (view.waits_for_approval, view.approved_job, view.waiting_reason) == (False, whole.id, None)
    assert sample.approve().id == whole.id
    with pytest.raises(Conflict, match=f"approved as {whole.id} with other options"):
        sample.approve(prompt="other")
    with pytest.raises(Conflict, match="cancel that one"):
        sample.reject()
    assert [event.type for event in sample.events()][-1] == "job.approved"


def test_inline_prompts_with_seeds_and_options_of_their_own(world: Counted) -> None:
    before = world.computed
    headers = {"Authorization": f"Bearer {world.system.admin_key}"}
    items: list[dict[str, Any]] = [{"id": f"p{n}", "prompt": f"a tree {n}"} for n in range(60)]
    items[7] |= {"seed": 123, "options": {"guidance": 3.0}}
    body = {"kind": "generate", "model": "chaos", "options": {"images": 2, "seed": 9}, "input": {"items": items}}
    with httpx.Client(base_url=world.system.url, headers=headers) as http:
        made = http.post("/v1/jobs", json=body | {"sample": 60}).raise_for_status().json()
        sample = world.client.attach(made["id"])
        tried = world.finish(sample)
        answers = [http.post(f"/v1/jobs/{sample.id}/approve") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    whole = world.client.attach(answers[0].json()["id"])
    assert computed_since(world, before) == 120
    assert world.finish(whole) == tried, "a sample of everything is everything"
    assert computed_since(world, before) == 120
    assert tried[7]["images"][0]["seed"] == 123


def test_what_lies_in_the_store_and_an_edit_that_is_looked_at_again(world: Counted) -> None:
    bucket = world.system.settings.s3_bucket
    client = operators_view(world.system.environment)
    for n in range(50):
        data = io.BytesIO()
        Image.new("RGB", (16, 16), (n, 1, 2)).save(data, "PNG")
        client.put_object(bucket, f"shared/{n:03d}.png", io.BytesIO(data.getvalue()), len(data.getvalue()))
    before = world.computed
    first = world.client.caption(f"s3://{bucket}/shared/", prompt="what lies", temperature=0.5, sample=5)
    world.finish(first)
    second = first.approve(prompt="which lies", sample=10)
    world.finish(second)
    assert (second.view.sample, second.view.sample_total, second.view.options["prompt"]) == (10, 50, "which lies")
    assert second.view.options["temperature"] == 0.5, "what is not changed stays"
    assert second.id == first.approve(prompt="which lies", sample=10).id
    whole = second.approve()
    lines = world.finish(whole)
    assert computed_since(world, before) == 5 + 10 + 40
    assert whole.view.items.reused == 10
    assert {line["caption"].partition(" #")[0] for line in lines} == {"which lies"}
    with pytest.raises(Exception, match=r"options\.steps is not known"):
        world.client.caption(f"s3://{bucket}/shared/", sample=5).approve(steps=3)


def test_rejected_is_rejected_and_only_a_completed_sample_is_approved(world: Counted) -> None:
    sample = world.client.generate([f"a hill {n}" for n in range(30)], sample=3)
    world.finish(sample)
    again = world.client.generate([f"a hill {n}" for n in range(30)], sample=3)
    assert [line["id"] for line in world.finish(again)] == [line["id"] for line in sample.results()]
    assert sample.reject().rejected_at is not None
    assert sample.reject().waits_for_approval is False
    with pytest.raises(Conflict, match="was rejected at"):
        sample.approve()
    no_sample = world.client.generate("a hill")
    world.finish(no_sample)
    for act in (no_sample.approve, no_sample.reject):
        with pytest.raises(Conflict, match="is no sample"):
            act()
    later = datetime.now(UTC) + timedelta(hours=3)
    window = f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M} UTC"
    cancelled = world.client.generate([f"a hill {n}" for n in range(30)], sample=3, window=window)
    cancelled.cancel()
    cancelled.wait(60)
    with pytest.raises(Conflict, match="can be approved when it is completed"):
        cancelled.approve()


def test_the_whole_may_run_at_other_times_than_its_sample(world: Counted) -> None:
    sample = world.client.generate([f"a dune {n}" for n in range(30)], sample=3)
    world.finish(sample)
    later = datetime.now(UTC) + timedelta(hours=3)
    window = f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M} UTC"
    with pytest.raises(Exception, match="must be in the future"):
        sample.approve(deadline_at=datetime.now(UTC) - timedelta(hours=1))
    ends_at = (later + timedelta(days=30)).replace(second=0, microsecond=0)
    times = ["--window", window, "--deadline", f"{ends_at:%Y-%m-%dT%H:%M%z}"]
    told = world.system.janus("jobs", "approve", sample.id, *times)
    assert told.returncode == 0, told.stderr
    whole = world.client.attach(told.stdout.strip())
    assert (whole.view.window, whole.view.deadline_at) == (window, ends_at)
    assert sample.approve(window=window, deadline_at=ends_at).id == whole.id
    with pytest.raises(Conflict, match="with other options"):
        sample.approve()
    whole.cancel()


def test_a_script_gets_an_id_and_the_next_commands(world: Counted, tmp_path: Path) -> None:
    photos, out = colours(tmp_path / "photos", 0, 30), tmp_path / "captions.jsonl"
    done = world.system.janus("caption", str(photos), "--prompt", "what script", "--sample", "6", "--out", str(out))
    assert done.returncode == 0, done.stderr
    sample = done.stdout.strip()
    assert f"janus jobs approve {sample}" in done.stderr
    assert not out.exists()
    with Image.open(tmp_path / "captions-sample.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert sheet.getpixel((50, 150)) != sheet.getpixel((300, 150)), "pictures are on it"
    listed = world.system.janus("jobs", "list", "--limit", "1").stdout
    assert "completed, to approve" in listed
    approved = world.system.janus("jobs", "approve", sample, "--max-tokens", "40")
    whole = world.client.attach(approved.stdout.strip())
    assert whole.wait(60).items.total == 30
    assert whole.view.options["max_tokens"] == 40
    assert f"approved job\t{whole.id}" in world.system.janus("jobs", "show", sample).stdout
    refused = world.system.janus("jobs", "reject", sample)
    assert (refused.returncode, "cancel that one" in refused.stderr) == (1, True)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Terminal:
    """`janus` on a terminal, with somebody who answers."""

    def __init__(self, system: System, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = system.environment | {"JANUS_URL": system.url, "JANUS_API_KEY": system.admin_key}
        command = [sys.executable, "-c", "from orchestrator.cli.main import app; app()", *arguments]
        self._process = subprocess.Popen(
            command, env=environment | {"COLUMNS": "120", "TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""

    def answer(self, question: str, text: str) -> None:
        self._read_until(lambda: question in self.said)
        self.said = ""
        os.write(self._ours, text.encode() + b"\n")

    def end(self) -> int:
        self._read_until(lambda: self._process.poll() is not None)
        os.close(self._ours)
        return self._process.wait(10)

    def _read_until(self, holds: Any) -> None:
        give_up_at = time.monotonic() + 90
        while not holds():
            assert time.monotonic() < give_up_at, self.said
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    self.said += os.read(self._ours, 2**16).decode(errors="replace")
                except OSError:  # the other end is closed
                    self._process.wait(30)


def test_a_person_edits_looks_again_and_approves(world: Counted, tmp_path: Path) -> None:
    photos, out = colours(tmp_path / "photos", 0, 25), tmp_path / "captions.jsonl"
    arguments = ("caption", str(photos), "--prompt", "what person", "--sample", "4", "--out", str(out))
    terminal = Terminal(world.system, *arguments)
    terminal.answer("or [r]eject?", "edit")
    terminal.answer("prompt [what person]", "which person")
    terminal.answer("or [r]eject?", "a")
    assert terminal.end() == 0, terminal.said
    lines = lines_of(out)
    assert len(lines) == 25
    assert {line["caption"].partition(" #")[0] for line in lines} == {"which person"}
    assert "4 used again" in terminal.said


def test_a_person_rejects(world: Counted, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    terminal = Terminal(world.system, "generate", "a cliff", "a bay", "--sample", "1", "--out", str(drawn))
    terminal.answer("[a]pprove the whole, or [r]eject?", "r")
    assert terminal.end() == 0, terminal.said
    assert "is rejected" in terminal.said
    assert not drawn.exists()
    sheet = tmp_path / "drawn-sample.jpg"
    assert sheet.exists()


def test_a_sample_that_is_cancelled_while_it_is_counted_stops(world: Counted, tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"prompt": f"a stone {n}"}) + "\n" for n in range(120_000)))
    job = world.client.generate(file=many, sample=2)
    job.cancel()
    assert job.wait(60).state is JobState.cancelled


# --- Replays ------------------------------------------------------------------------------------------------------


def test_an_item_that_is_made_again_is_the_same(world: Counted, tmp_path: Path) -> None:
    photos, before = colours(tmp_path / "photos", 0, 150), world.computed
    job = world.client.caption(photos, prompt="what again {name}", temperature=0.7, seed=3)
    lines = world.finish(job)
    found = job.replay(140, timeout_seconds=60)
    assert found.same
    assert found.same_weights
    assert found.before == lines[140]
    assert found.now == lines[140] | {"index": 0}
    assert computed_since(world, before) == 151, "it was computed, not used again"
    assert (made := world.client.attach(found.job)).view.replay_of == job.id
    assert (made.view.replay_index, made.view.reuse) == (140, False)
    done = world.system.janus("replay", job.id, "7")
    assert (done.returncode, done.stdout.strip().endswith("the same")) == (0, True), done.stderr
    drawn = world.client.generate([f"a river {n}" for n in range(3)], images=2)
    world.finish(drawn)
    assert drawn.replay(2, timeout_seconds=60).same
    assert world.system.janus("replay", job.id, "150").returncode == 1


def test_what_differs_is_told_and_a_script_sees_it(world: Counted, tmp_path: Path) -> None:
    """Somebody put another picture in the place of the first."""
    job = by_name(world, colours(tmp_path / "photos", 0, 2))
    world.finish(job)
    client, bucket = operators_view(world.system.environment), world.system.settings.s3_bucket
    [key] = [e.object_name for e in client.list_objects(bucket, "uploads/", recursive=True) if uploaded(e, job)]
    data = io.BytesIO()
    Image.new("RGB", (16, 16), (250, 0, 0)).save(data, "PNG")
    client.put_object(bucket, str(key), io.BytesIO(data.getvalue()), len(data.getvalue()))
    done = world.system.janus("replay", job.id, "1")
    assert done.returncode == 3, done.stderr
    assert "different" in done.stdout
    assert re.search(r"caption was 'what name #010063 .*' and is 'what name #fa0000 ", done.stdout)
    as_json = json.loads(world.system.janus("replay", job.id, "1", "--json").stdout)
    assert (as_json["same"], as_json["same_weights"]) == (False, True)


def by_name(world: Counted, photos: Path) -> Job:
    """A job whose files are objects of their own names."""
    headers = {"Authorization": f"Bearer {world.system.admin_key}"}
    with httpx.Client(base_url=world.system.url, headers=headers) as http:
        upload = http.post("/v1/uploads").raise_for_status().json()["id"]
        names = [path.name for path in sorted(photos.iterdir())]
        links = http.post(f"/v1/uploads/{upload}/urls", json={"names": names}).raise_for_status().json()["urls"]
        for name, link in zip(names, links, strict=True):
            httpx.put(link, content=(photos / name).read_bytes()).raise_for_status()
        body = {"kind": "caption", "model": "chaos", "name": upload, "options": {"prompt": "what name"}}
        made = http.post("/v1/jobs", json=body | {"input": {"upload": upload}}).raise_for_status().json()
    return world.client.attach(made["id"])


def uploaded(entry: Any, job: Job) -> bool:
    return f"/{job.view.name}/" in entry.object_name and entry.object_name.endswith("00001.png")


# --- Round trips --------------------------------------------------------------------------------------------------


def test_a_round_trip_is_a_folder_to_look_at(world: Counted, tmp_path: Path) -> None:
    photos, out = colours(tmp_path / "photos", 0, 5), tmp_path / "trip"
    (photos / "<b>&'\".png").write_bytes((photos / "00000.png").read_bytes())
    (photos / "zz.png").write_bytes(b"no picture")
    done = world.system.janus("roundtrip", str(photos), "--out", str(out), "--prompt", "<script>what</script>")
    assert done.returncode == 3, done.stderr
    assert "6 pairs of 7 pictures" in done.stderr, "one was no picture"
    page = (out / "index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;what" in page
    assert "&lt;b&gt;&amp;" in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    shown = re.findall(r'src="([^"]+)"', page)
    assert len(shown) == 12
    assert all((out / name).is_file() for name in shown)
    assert len(lines_of(out / "captions.jsonl")) == 7
    captions = {line["id"]: line.get("caption") for line in lines_of(out / "captions.jsonl")}
    drawn = lines_of(out / "drawn" / "results.jsonl")
    assert all(captions[line["id"]] == line["prompt"] for line in drawn)
    with Image.open(out / "side-by-side.jpg") as sheet:
        assert sheet.format == "JPEG"
