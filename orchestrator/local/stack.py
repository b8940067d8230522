"""`janus up`, `down` and `status`: what the command line calls."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.local import children
from orchestrator.local.children import Identity, Record
from orchestrator.local.errors import LocalError, StackError, last_lines
from orchestrator.local.files import locked, log_path, make_folder
from orchestrator.local.state import ProcessState, StackState, Wanted

SUPERVISOR = (sys.executable, "-m", "orchestrator.local.supervisor")
TROUBLED_ENDS = 2  # in a row; one may be an accident
HOPELESS_RESTARTS = 3  # a process that ended so often while the stack was starting will not get better


@dataclass(frozen=True)
class StackInfo:
    """A stack that serves."""

    url: str
    api_key: str
    pids: dict[str, int]
    ports: dict[str, int]
    models: list[str]
    already_running: bool


@dataclass(frozen=True)
class ProcessStatus:
    """One process of the stack; `pid` is None while it waits to be started again, `trouble` is why that is often."""

    name: str
    pid: int | None
    alive: bool
    restarts: int
    port: int | None
    trouble: str = ""


@dataclass(frozen=True)
class StackStatus:
    """`phase` is starting, running, stopping, stopped or failed; `error` says why it failed."""

    running: bool
    phase: str
    error: str
    url: str
    models: list[str]
    processes: list[ProcessStatus]


def up(
    home: Path,
    models: Sequence[str] | None = None,
    timeout_seconds: float = 180.0,
    workers: int = 1,
    *,
    supervisor: Sequence[str] = SUPERVISOR,
) -> StackInfo:
    """Start the stack of a folder, or use the one that runs; returns when the API is ready and a worker serves.

    Args:
        models: each `name` or `name=/path/to/checkpoint`; None means those of the last time. With none at all no worker
            is started, and the API alone is waited for.
        workers: worker processes; each serves all the models.
    Raises:
        StackError: it did not become ready; the message holds the end of the log that tells why.
    """
    home = make_folder(home.expanduser().resolve())
    deadline = time.monotonic() + timeout_seconds
    with locked(home / "stack.lock", timeout_seconds, "janus up"):
        running = _find_supervisor(home)
        if running is not None and StackState.read(home).phase in ("stopping", "failed"):
            children.wait_for_end(running, deadline - time.monotonic())
            running = _find_supervisor(home)
        if models is not None:
            _set_wanted(home, Wanted(_absolute(models), workers), running)
        child = running or _start_supervisor(home, supervisor)
        state = _wait_until_ready(home, child, deadline, started_now=running is None)
    return StackInfo(
        url=state.url,
        api_key=_read_key(home),
        pids={"supervisor": child.pid} | {p.name: p.pid for p in state.processes if p.pid is not None and not p.ending},
        ports={p.name: p.port for p in state.processes if p.port is not None},
        models=list(state.models),
        already_running=running is not None,
    )


def down(home: Path, timeout_seconds: float = 60.0) -> bool:
    """Stop the stack of a folder, workers first; True when one was running. Nothing of it runs afterwards."""
    home = home.expanduser().resolve()
    if not home.exists():
        return False
    with locked(home / "stack.lock", timeout_seconds, "janus down"):
        running = _find_supervisor(home)
        if running is not None:
            children.stop(running, ((signal.SIGTERM, timeout_seconds),))
        _end_orphans(home)
        return running is not None


def status(home: Path) -> StackStatus:
    """How the stack of a folder stands; starts nothing."""
    home = home.expanduser().resolve()
    state = StackState.read(home)
    running = _find_supervisor(home) is not None
    phase = state.phase if running or state.phase == "failed" else "stopped"
    processes = [
        ProcessStatus(
            p.name,
            p.pid if running else None,
            running and p.pid is not None,
            p.restarts,
            p.port,
            _trouble(home, p) if running else "",
        )
        for p in state.processes
    ]
    return StackStatus(running, phase, state.error, state.url, list(Wanted.read(home).models), processes)


def _trouble(home: Path, process: ProcessState) -> str:
    """Why a process that keeps ending does so, as far as its log tells; empty for others."""
    if process.quick_ends < TROUBLED_ENDS:
        return ""
    log = home / "logs" / f"{process.name}.log"
    return (
        f"{process.name} ended {process.quick_ends} times soon after its start, and is started again and again. "
        f"Its log is {log}; the end of it:\n{last_lines(log)}"
    )


def set_models(home: Path, models: Sequence[str], workers: int = 1) -> None:
    """Serve these models: a running stack restarts its workers, each when it has written what it holds."""
    home = make_folder(home.expanduser().resolve())
    with locked(home / "stack.lock", 60.0, "setting the models"):
        _set_wanted(home, Wanted(_absolute(models), workers), _find_supervisor(home))


def _set_wanted(home: Path, wanted: Wanted, running: Identity | None) -> None:
    if wanted == Wanted.read(home):
        return
    wanted.write(home)
    process = running.find() if running is not None else None
    if process is not None:
        process.send_signal(signal.SIGHUP)


def _absolute(models: Sequence[str]) -> tuple[str, ...]:
    """Checkpoint folders are named from the caller's working directory, workers run in another."""
    parts = [model.partition("=") for model in models]
    return tuple(f"{name}={Path(path).expanduser().resolve()}" if path else name for name, _, path in parts)


def _find_supervisor(home: Path) -> Identity | None:
    """The supervisor of this folder: the recorded process, created when the record says, with this folder's name."""
    record = Record.read(home / "supervisor.json")
    process = record.child.find() if record is not None else None
    if record is None or process is None or str(home) not in process.cmdline():
        return None
    return record.child


def _start_supervisor(home: Path, command: Sequence[str]) -> Identity:
    _end_orphans(home)
    StackState(phase="starting").write(home)
    log = log_path(home, "supervisor")
    child = children.spawn_detached([*command, str(home)], log=log, env=os.environ, cwd=home)
    Record(child, child).write(home / "supervisor.json")
    return child


def _end_orphans(home: Path) -> None:
    """Stop what a killed supervisor may have left, the workers first."""
    for path in sorted((home / "run").glob("*.json"), reverse=True):
        children.end_orphan(path, patience_seconds=10.0)


def _wait_until_ready(home: Path, supervisor: Identity, deadline: float, *, started_now: bool) -> StackState:
    missing = "the supervisor has not started"
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            state = StackState.read(home)
            missing = _what_is_missing(home, state, client)
            if not missing:
                return state
            _give_up_if_ended(home, supervisor)
            if started_now:
                _give_up_if_hopeless(home, state, supervisor)
            time.sleep(0.1)
    raise StackError(
        f"the local stack in {home} is still starting: {missing}. It goes on; "
        f"look with `janus status` and in {home / 'logs'}."
    )


def _what_is_missing(home: Path, state: StackState, client: httpx.Client) -> str:
    """Empty when the API is ready and every worker has said that it serves the models, else what is waited for."""
    if state.phase != "running":
        return "the servers are starting"
    wanted = Wanted.read(home)
    if tuple(state.models) != tuple(wanted.models):
        return "the supervisor has not read the new models"
    try:
        if client.get(f"{state.url}/readyz").status_code != httpx.codes.OK:
            return "the API is not ready"
        if not wanted.models:
            return ""
        answer = client.get(f"{state.url}/v1/workers", headers={"Authorization": f"Bearer {_read_key(home)}"})
    except httpx.TransportError as error:
        return f"the API does not answer ({error})"
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise StackError(
            f"the API does not know the key in {home}/api_key; the database was made anew since. "
            f"Run `janus down`, remove that file, and run `janus up`."
        )
    if answer.status_code != httpx.codes.OK:
        return f"the API answers {answer.status_code} for its workers"
    ours = {p.pid for p in state.processes if p.name.startswith("worker-") and p.pid is not None and not p.ending}
    alive = {worker["pid"] for worker in answer.json()["workers"] if worker["alive"]}
    return "" if ours & alive else "no worker has its models loaded"


def _give_up_if_ended(home: Path, supervisor: Identity) -> None:
    if supervisor.find() is None:
        log = home / "logs" / "supervisor.log"
        reason = StackState.read(home).error or f"its supervisor ended; its log is {log}:\n{last_lines(log)}"
        raise StackError(f"the local stack in {home} did not start: {reason}")


def _give_up_if_hopeless(home: Path, state: StackState, supervisor: Identity) -> None:
    for process in state.processes:
        if process.pid is None and process.restarts >= HOPELESS_RESTARTS:
            log = home / "logs" / f"{process.name}.log"
            children.stop(supervisor, ((signal.SIGTERM, 60.0),))
            raise StackError(
                f"{process.name} ended {process.restarts} times while the local stack in {home} was starting, so the "
                f"stack was stopped. Its log is {log}; the end of it:\n{last_lines(log)}"
            )


def _read_key(home: Path) -> str:
    path = home / "api_key"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise LocalError(f"the key of the local stack cannot be read: {error}. Run `janus up` to make one.") from error
