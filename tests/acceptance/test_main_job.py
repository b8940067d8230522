"""The main job as people do it, through the command line and the client, on the whole system."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from orchestrator.artifacts import open_store
from orchestrator.client import Conflict, JobNotEnded, NotFound
from orchestrator.domain.jobs import JobState
from tests.system import System
from tests.unit.test_images import encode, huge_png, picture

pytestmark = pytest.mark.services


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_folder_is_captioned_in_name_order(system: System, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    done = system.janus("caption", str(photos), "--max-tokens", "12", "--seed", "5", "--out", str(out))
    assert done.returncode == 0, done.stderr
    results = lines(out)
    assert [r["id"] for r in results] == sorted(path.name for path in photos.iterdir())
    assert [r["index"] for r in results] == list(range(12))
    assert [r["seed"] for r in results] == list(range(5, 17))
    for result in results:
        assert {"caption", "num_tokens", "finish_reason", "model", "revision"} <= set(result)
        assert result["model"] == "tiny"


def test_same_job_again_gives_the_same_bytes(system: System, photos: Path, tmp_path: Path) -> None:
    options = ("--max-tokens", "12", "--temperature", "1", "--seed", "3")
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for out in outs:
        assert system.janus("caption", str(photos), *options, "--out", str(out)).returncode == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_captions_as_table_and_beside_names(system: System, photos: Path, tmp_path: Path) -> None:
    table, folder = tmp_path / "captions.csv", tmp_path / "captions"
    source = str(photos / "photo-0[0-3].jpg")
    assert system.janus("caption", source, "--max-tokens", "8", "--out", str(table)).returncode == 0
    with table.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert system.janus("caption", str(photos), "--max-tokens", "8", "--out", str(folder)).returncode == 0
    assert len(list(folder.glob("*.txt"))) == 12


def test_prompts_are_drawn(system: System, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "images"
    prompts.write_text("a red house\n\na blue house by the sea\nein grünes Haus\n", encoding="utf-8")
    done = system.janus("generate", "--file", str(prompts), "--images", "2", "--seed", "9", "--out", str(out))
    assert done.returncode == 0, done.stderr
    results = lines(out / "results.jsonl")
    assert [r["prompt"] for r in results] == ["a red house", "a blue house by the sea", "ein grünes Haus"]
    images = [image for result in results for image in result["images"]]
    assert [image["seed"] for image in images] == [9, 10, 11, 12, 13, 14]
    for image in images:
        data = (out / image["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == image["sha256"]
        with Image.open(out / image["file"]) as opened:
            assert opened.size == (image["width"], image["height"])


def test_an_item_may_ask_for_other_options_than_its_job(system: System, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a red circle"}\n{"prompt": "a blue square", "options": {"images": 3}}\n')
    with system.client() as client:
        job = client.generate(file=prompts, seed=5)
        job.wait()
        first, second = job.results()
    assert [len(result["images"]) for result in (first, second)] == [1, 3]
    assert (second["options"], "options" in first) == ({"images": 3}, False)


def test_question_about_several_images(system: System, photos: Path) -> None:
    manifest = photos.parent / "manifest.jsonl"
    names = [f"{photos.name}/photo-{number:02d}.jpg" for number in range(3)]
    questions = [
        {"id": "both", "image": names[:2], "prompt": "<image_placeholder> or <image_placeholder>: which is brighter?"},
        {"id": "one", "image": names[2], "prompt": "What colour is it?"},
    ]
    manifest.write_text("".join(json.dumps(question) + "\n" for question in questions) + "not json\n")
    with system.client() as client:
        job = client.caption(manifest, max_tokens=6)
        job.wait(120)
        results = list(job.results())
    assert [r["id"] for r in results] == ["both", "one", "2"]
    assert "caption" in results[0]
    assert "caption" in results[1]
    assert results[2]["failure"]["code"] == "item_invalid"


def test_bad_input_costs_its_own_item(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    sixteen = Image.fromarray(np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20))
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
    good = {
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": encode(picture("CMYK"), "JPEG"),
        "one-pixel.png": encode(Image.new("RGB", (1, 1)), "PNG"),
        "palette.png": encode(picture("P"), "PNG", transparency=b"\x00\x80"),
        "sixteen-bit.png": encode(sixteen, "PNG"),
    }
    bad = {
        "huge.png": (huge_png(30_000), "image_too_large"),
        "text.jpg": (b"this is no picture", "image_unreadable"),
        "truncated.jpg": (encode(picture(size=(300, 200)), "JPEG")[:-1500], "image_unreadable"),
        "zero.jpg": (b"", "image_unreadable"),
    }
    for name, data in {**good, **{name: data for name, (data, _) in bad.items()}}.items():
        (folder / name).write_bytes(data)
    out = tmp_path / "out.jsonl"
    done = system.janus("caption", str(folder), "--max-tokens", "8", "--out", str(out))
    assert done.returncode == 3, done.stderr
    by_id = {str(result["id"]): result for result in lines(out)}
    assert set(by_id) == set(good) | set(bad)
    for name in good:
        assert "caption" in by_id[name], by_id[name]
    for name, (_, code) in bad.items():
        failure = by_id[name]["failure"]
        assert failure["code"] == code
        assert failure["message"].endswith((".", "?"))
    job_id = done.stderr.split("submitted ")[1].split(";")[0]
    listed = system.janus("jobs", "failures", job_id, "--json")
    assert sorted(f["id"] for f in json.loads(listed.stdout)) == sorted(bad)
    assert system.janus("jobs", "verify", job_id).returncode == 0


def test_retry_makes_a_job_of_what_failed(system: System, photos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    late = tmp_path / "late.jpg"
    items = [{"image": str(photos / "photo-00.jpg")}, {"id": "late", "image": "late.jpg", "seed": 77}]
    manifest.write_text("".join(json.dumps(item) + "\n" for item in items))
    with system.client() as client:
        job = client.caption(manifest, max_tokens=5)
        view = job.wait(60)
        assert (view.items.results, view.items.failures) == (1, 1)
        (failure,) = job.failures()
        assert (failure.id, failure.code) == ("late", "image_missing")
        late.write_bytes((photos / "photo-01.jpg").read_bytes())
        store = open_store(system.settings)
        upload = _upload_prefix(system, job.id)
        store.put(f"{upload}images/000000001.jpg", late.read_bytes())
        store.close()
        retry = job.retry_failures()
        assert retry.wait(60).items.results == 1
        (result,) = retry.results()
    assert (result["id"], result["seed"]) == ("late", 77)


def test_job_that_is_deleted_takes_its_objects_along(system: System, photos: Path) -> None:
    with system.client() as client:
        kept, gone = (client.caption(photos / "photo-00.jpg", max_tokens=5) for _ in range(2))
        with pytest.raises(Conflict, match="Cancel it first"):
            client.caption(photos, max_tokens=500).delete()
        for job in (kept, gone):
            job.wait(60)
        prefixes = [f"jobs/{gone.id}/", _upload_prefix(system, gone.id)]
        assert system.janus("jobs", "delete", gone.id).returncode == 0
        with pytest.raises(NotFound):
            gone.refresh()
        store = open_store(system.settings)
        system.wait_until(lambda: not any(list(store.list(prefix)) for prefix in prefixes), "its objects are gone")
        store.close()
        assert kept.verify().ok
    assert system.janus("jobs", "delete", gone.id).returncode == 1


def _upload_prefix(system: System, job_id: str) -> str:
    from orchestrator.db import jobs
    from orchestrator.db.session import connect, session_factory
    from orchestrator.db.uploads import upload_prefix

    engine = connect(system.settings.database_url.get_secret_value())
    with session_factory(engine)() as session:
        job = jobs.get_job(session, job_id)
        prefix = upload_prefix(job.team_id, job.input["upload"])
    engine.dispose()
    return prefix


def test_tampered_objects_are_found(system: System) -> None:
    with system.client() as client:
        job = client.generate(["one", "two", "three"], seed=4)
        job.wait(60)
        assert job.verify().ok
    store = open_store(system.settings)
    names = [stored.key for stored in store.list(f"jobs/{job.id}/") if "/items/" not in stored.key]
    assert any("/images/" in name for name in names)
    assert any("/shards/" in name for name in names)
    for name in names:
        data = store.get(name)
        store.put(name, data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        done = system.janus("jobs", "verify", job.id)
        assert done.returncode == 1, f"{name} was changed and nobody noticed"
        store.put(name, data)
    assert system.janus("jobs", "verify", job.id).returncode == 0
    store.close()


def test_cancel_in_the_middle_of_a_shard_takes_seconds_and_keeps_what_is_finished(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    with system.client() as client:
        job = client.generate([f"prompt {i}" for i in range(400)], images=4, shard_items=400)
        system.wait_until(lambda: job.refresh().items.finished > 0, "the first items are finished", 60)
        asked_at = time.monotonic()
        job.cancel()
        view = job.wait(20)
        took_seconds = time.monotonic() - asked_at
        results = list(job.results())
        verified = job.verify()
    assert view.state is JobState.cancelled
    with capsys.disabled():
        print(f"\ncancel: the job had ended {took_seconds:.2f} s after it was asked for; {view.items}")
    assert 0 < len(results) == view.items.results < 400
    assert view.items.cancelled == 400 - view.items.results
    assert verified.ok, verified.problems


def test_pause_stops_and_resume_goes_on(system: System) -> None:
    with system.client() as client:
        job = client.generate([f"prompt {i}" for i in range(60)], shard_items=10)
        job.pause()
        with pytest.raises(JobNotEnded):
            job.wait(3)
        seen = job.refresh().items.finished
        assert "paused" in str(job.view.waiting_reason)
        time.sleep(1)
        assert job.refresh().items.finished == seen
        job.resume()
        assert job.wait(60).items.results == 60


def test_results_are_readable_while_the_job_runs(system: System) -> None:
    with system.client() as client:
        job = client.generate([f"prompt {i}" for i in range(120)], images=2, shard_items=4)
        seen_running = 0
        indexes = []
        for result in job.results():
            indexes.append(result["index"])
            seen_running += not job.ended and not job.refresh().state.ended
        assert indexes == list(range(120))
        assert seen_running > 0


def test_another_team_sees_nothing_and_its_urls_open_nothing(system: System) -> None:
    with system.client() as client:
        job = client.generate(["mine"])
        job.wait(60)
        url = job.urls(["results.jsonl"])[0]
    with system.client(system.make_key("strangers")) as stranger:
        with pytest.raises(NotFound):
            stranger.attach(job.id)
        assert list(stranger.jobs()) == []
    assert httpx.get(url).status_code == 200
    assert httpx.get(url.replace("results.jsonl", "manifest.json")).status_code == 403
    assert httpx.get(url.split("?")[0]).status_code == 403


def test_doctor_finds_a_healthy_system(system: System) -> None:
    done = system.janus("doctor")
    assert done.returncode == 0, done.stdout
    assert "BAD" not in done.stdout
    assert "2 alive" in done.stdout


def test_usage_errors_are_told_before_anything_is_submitted(system: System, photos: Path) -> None:
    cases = [
        (["caption", str(photos), "--out", "x.xlsx"], 1, "parquet"),
        (["caption", "/nothing/here", "--out", "x.jsonl"], 1, "no such file"),
        (["caption", str(photos), "--temperature", "-1", "--out", "x.jsonl"], 1, "temperature"),
        (["caption", str(photos), "--model", "typo", "--out", "x.jsonl"], 1, "typo"),
        (["generate", "--out", "x"], 2, "prompt"),
        (["caption", str(photos)], 2, "--out"),
        (["jobs", "show", "job_x"], 1, "job_x"),
    ]
    for arguments, status, says in cases:
        done = system.janus(*arguments)
        assert done.returncode == status, (arguments, done.stderr)
        assert says in done.stderr, done.stderr
