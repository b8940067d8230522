"""Commands on the whole system as a person, a script and a shell use them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.system import System

pytestmark = pytest.mark.services
JANUS = [sys.executable, "-c", "from orchestrator.cli.main import app; app(prog_name='janus')"]


def on_a_terminal(system: System, *arguments: str) -> str:
    """What a command writes to a terminal of 160 columns, its colours and movements taken out."""
    ours, theirs = pty.openpty()
    environment = system.environment | {
        "JANUS_URL": system.url, "JANUS_API_KEY": system.admin_key, "COLUMNS": "160", "TERM": "xterm",
    }  # fmt: skip
    process = subprocess.Popen([*JANUS, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait(60) == 0, text
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())


def completed(system: System, line: str) -> list[str]:
    """What bash is offered after a line, asked as its completion script asks."""
    environment = system.environment | {
        "JANUS_URL": system.url, "JANUS_API_KEY": system.admin_key, "_JANUS_COMPLETE": "complete_bash",
        "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1),
    }  # fmt: skip
    done = subprocess.run(JANUS, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_watch_shows_jobs_as_lines_json_and_a_table(system: System) -> None:
    with system.client() as client:
        first = client.generate(["a", "b"], name="first")
        second = client.generate(["c", ""], name="second")
        followed = system.janus("jobs", "watch", first.id, second.id)
        assert followed.returncode == 3, "an empty prompt has no result"
        last = {line.split()[0]: line for line in followed.stdout.splitlines()}
        assert last[first.id].startswith(f"{first.id} completed: 2/2 items")
        assert "1 failed" in last[second.id]
        followed = system.janus("jobs", "watch", first.id, "--json")
        assert followed.returncode == 0
        assert [json.loads(line)["state"] for line in followed.stdout.splitlines()] == ["completed"]
    table = on_a_terminal(system, "jobs", "watch", first.id)
    assert "HOW IT GOES" in table
    assert re.search(rf"{first.id} .*first .*completed .*2/2", table)


def test_watch_without_an_id_follows_what_is_open(system: System) -> None:
    with system.client() as client:
        system.wait_until(lambda: all(job.ended for job in client.jobs()), "jobs of other tests end", 120)
        assert "no job is open" in system.janus("jobs", "watch").stderr
        jobs = [client.generate([f"p{n}" for n in range(20)], name=f"job {n}") for n in range(3)]
    followed = system.janus("jobs", "watch", "--json")
    assert followed.returncode == 0, followed.stderr
    ends = {view["id"] for view in map(json.loads, followed.stdout.splitlines()) if view["state"] == "completed"}
    assert ends <= {job.id for job in jobs}
    assert jobs[-1].id in ends


def test_changes_say_what_they_did_in_json(system: System) -> None:
    with system.client() as client:
        job = client.generate([f"p{n}" for n in range(400)])
        assert json.loads(system.janus("jobs", "pause", job.id, "--json").stdout)["paused_at"]
        assert not json.loads(system.janus("jobs", "resume", job.id, "--json").stdout)["paused_at"]
        assert json.loads(system.janus("jobs", "cancel", job.id, "--json").stdout)["cancel_requested_at"]
        job.wait(60)
        told = json.loads(system.janus("jobs", "delete", job.id, "--json").stdout)
        assert told == {"id": job.id, "deleted": True}


def test_sheet_shows_what_a_sweep_made(system: System, tmp_path: Path) -> None:
    with system.client() as client:
        job = client.generate(["a red circle"], sweep={"guidance": [1, 2], "seed": [3, 4]})
        job.wait(timeout_seconds=120)
    told = system.janus("jobs", "sheet", job.id, "--out", str(tmp_path / "sheet.jpg"))
    assert (told.returncode, told.stderr.strip()) == (0, f"contact sheet: {tmp_path / 'sheet.jpg'}")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        colours = {len(sheet.crop((left, 104, left + 224, 328)).getcolors(2**16) or [()] * 2**16) for left in (12, 720)}
    assert min(colours) > 1, "four pictures beside each other"


def test_quota_and_refusals_say_what_to_do(system: System) -> None:
    with system.client() as client:
        job = client.generate(["a", ""])
        job.wait(timeout_seconds=120)
    assert "items in flight\t0\tnone" in system.janus("teams", "quota").stdout
    told = system.janus("jobs", "retry", job.id, "--code", "nonsense")
    assert (told.returncode, "its failures are prompt_empty" in told.stderr) == (1, True), told.stderr
    told = system.janus("replay", job.id, "7")
    assert f"{job.id} has no item 7: it has 2, from 0 to 1" in told.stderr
    told = system.janus("jobs", "retry", job.id)
    assert f"janus jobs results {told.stdout.strip()}" in told.stderr


def test_tab_offers_commands_jobs_and_models(system: System) -> None:
    with system.client() as client:
        job = client.generate(["a"])
        job.wait(60)
    assert "watch" in completed(system, "janus jobs w")
    assert job.id in completed(system, "janus jobs show ")
    assert job.id in completed(system, f"janus jobs delete {job.id[:8]}")
    assert job.id not in completed(system, "janus jobs cancel "), "what has ended cannot be cancelled"
    assert completed(system, "janus generate --model ti") == ["tiny"]
    with system.client() as client:
        assert client.whoami().team.id in completed(system, "janus teams weight ")
