"""`up`, `down` and `status` over real servers, with stand-ins for the API, the dispatcher and the workers."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from orchestrator.local.children import Identity, Record
from orchestrator.local.errors import StackError
from orchestrator.local.stack import StackInfo, down, set_models, status, up

pytestmark = pytest.mark.services

STAND_INS = (sys.executable, str(Path(__file__).with_name("stand_ins.py")), "supervisor")


def start(home: Path, models: list[str] | None = None, **options: int) -> StackInfo:
    return up(home, models, timeout_seconds=60, supervisor=STAND_INS, **options)


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def pid_of(home: Path, name: str) -> int | None:
    return next((process.pid for process in status(home).processes if process.name == name), None)


def workers(home: Path) -> set[int]:
    pids = {pid_of(home, "worker-1"), pid_of(home, "worker-2")}
    return {pid or 0 for pid in pids}


def seen(home: Path) -> dict[int, list[str]]:
    return {int(path.stem): json.loads(path.read_text() or "[]") for path in (home / "seen").glob("*.json")}


def processes_of(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("JANUS_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    servers = [Record.read(home / "run" / f"{name}.json") for name in ("postgres", "valkey", "s3")]
    return found + [str(record.child) for record in servers if record is not None and record.child.find() is not None]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("stack") / "home"
    yield home
    down(home)


@pytest.fixture
def stack(home: Path) -> StackInfo:
    return start(home, ["a", "b"])


def test_up_returns_a_stack_that_serves_and_its_key(home: Path, stack: StackInfo) -> None:
    assert httpx.get(f"{stack.url}/readyz", trust_env=False).json() == {"status": "ready"}
    assert stack.api_key == "jns_test_key"
    assert stack.models == ["a", "b"]
    assert set(stack.pids) == {"supervisor", "postgres", "valkey", "s3", "api", "dispatcher", "worker-1"}
    assert stack.url == f"http://127.0.0.1:{stack.ports['api']}"
    assert stat.S_IMODE((home / "api_key").stat().st_mode) == 0o600
    assert (home / "migrated").exists()
    assert all(process.alive for process in status(home).processes)


def test_up_again_uses_the_running_stack(home: Path, stack: StackInfo) -> None:
    again = start(home)
    assert again.already_running
    assert again.pids == stack.pids


def test_two_ups_at_once_make_one_stack(tmp_path: Path) -> None:
    home, infos = tmp_path / "home", []
    threads = [threading.Thread(target=lambda: infos.append(start(home))) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(info.already_running for info in infos) == [False, True]
        assert infos[0].pids == infos[1].pids
    finally:
        down(home)


@pytest.mark.parametrize("name", ["api", "dispatcher", "worker-1", "valkey"])
def test_a_killed_process_is_started_again(home: Path, stack: StackInfo, name: str) -> None:
    before = next(process.restarts for process in status(home).processes if process.name == name)
    os.kill(stack.pids[name], signal.SIGKILL)
    wait_until(lambda: pid_of(home, name) not in (None, stack.pids[name]))
    after = next(process for process in status(home).processes if process.name == name)
    assert after.restarts == before + 1
    assert after.port == stack.ports.get(name)
    if name == "worker-1":  # a second end in a row is no accident
        os.kill(after.pid or 0, signal.SIGKILL)
        wait_until(lambda: "worker-1 ended 2 times soon after" in status(home).processes[-1].trouble)


def test_new_models_restart_the_workers_and_nothing_else(home: Path, stack: StackInfo) -> None:
    checkpoint = home / "checkpoint"
    info = start(home, ["c", f"d={checkpoint}"], workers=2)
    assert info.models == ["c", f"d={checkpoint}"]
    assert stack.pids["worker-1"] not in info.pids.values()
    wait_until(lambda: pid_of(home, "worker-1") not in (None, stack.pids["worker-1"]))
    assert {k: v for k, v in info.pids.items() if not k.startswith("worker")} == {
        k: v for k, v in stack.pids.items() if not k.startswith("worker")
    }
    wait_until(
        lambda: {pid for pid, served in seen(home).items() if served == ["c", f"d={checkpoint}"]} >= workers(home)
    )

    set_models(home, ["a"])
    wait_until(lambda: {process.name for process in status(home).processes if process.alive} >= {"worker-1"})
    wait_until(lambda: pid_of(home, "worker-2") is None and seen(home).get(pid_of(home, "worker-1") or 0) == ["a"])


def test_down_ends_workers_first_and_leaves_nothing(home: Path, stack: StackInfo) -> None:
    (home / "ended.txt").unlink(missing_ok=True)
    assert down(home)
    assert (home / "ended.txt").read_text().split() == ["worker", "dispatcher", "api"]
    assert processes_of(home) == []
    assert not status(home).running
    assert not down(home)


def test_a_second_start_keeps_ports_and_key(home: Path, stack: StackInfo) -> None:
    down(home)
    again = start(home)
    assert not again.already_running
    assert (again.ports, again.api_key, again.models) == (stack.ports, stack.api_key, stack.models)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
def test_nothing_is_left_of_a_killed_supervisor_and_the_next_start_works(home: Path, stack: StackInfo) -> None:
    os.kill(stack.pids["supervisor"], signal.SIGKILL)
    wait_until(lambda: processes_of(home) == [])
    assert not status(home).running
    again = start(home)
    assert not again.already_running
    assert again.ports == stack.ports


def test_a_foreign_process_with_the_supervisor_s_pid_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    me = Identity.of(os.getpid())
    for recorded in (Identity(me.pid, me.created_at - 100), me):  # another time, and our time but not our folder
        Record(recorded, recorded).write(home / "supervisor.json")
        assert not down(home)
        assert not status(home).running


def test_a_failed_migration_stops_all_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANUS_TEST", "fails-to-migrate")
    home = tmp_path / "home"
    with pytest.raises(StackError, match=r"migrate` ended with 3"):
        start(home)
    assert processes_of(home) == []
    assert status(home).phase == "failed"


def test_a_worker_that_always_dies_ends_the_start_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANUS_TEST", "worker-fails")
    home = tmp_path / "home"
    with pytest.raises(StackError, match="no such model"):
        start(home, ["a"])
    assert processes_of(home) == []


def test_the_real_processes_run_under_it_and_log_no_password(tmp_path: Path, tiny_checkpoint: Path) -> None:
    home = tmp_path / "home"
    try:
        info = up(home, [f"tiny={tiny_checkpoint}"], timeout_seconds=120)
        ask = {"url": f"{info.url}/v1/workers", "trust_env": False}
        (worker,) = httpx.get(headers={"Authorization": f"Bearer {info.api_key}"}, **ask).json()["workers"]
        assert (worker["pid"], worker["models"], worker["alive"]) == (info.pids["worker-1"], ["tiny"], True)
        assert httpx.get(headers={"Authorization": f"Bearer {info.api_key}x"}, **ask).status_code == 401
        assert all(process.alive and process.restarts == 0 for process in status(home).processes)
    finally:
        assert down(home)
    assert processes_of(home) == []
    secrets = [*json.loads((home / "secrets.json").read_text()).values(), (home / "api_key").read_text().strip()]
    logs = "".join(path.read_text(errors="replace") for path in (home / "logs").iterdir())
    assert not [secret for secret in secrets if secret in logs]
