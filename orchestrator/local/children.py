"""Child processes that end with their parent, and the record by which another process recognises them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import psutil

from orchestrator.local.files import make_folder, read_json, write_json

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """Whom a child runs as, where that is not ourselves."""

    uid: int
    gid: int


class _Child(subprocess.Popen[bytes]):
    def __del__(self) -> None:
        """A child that still runs when the interpreter ends is no mistake: the kernel ends it, see `spawn`."""


_own: dict[int, _Child] = {}  # children of this process, by pid, until they are reaped


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with the same pid by the time it was created."""

    pid: int
    created_at: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process while it lives; a zombie does not."""
        child = _own.get(self.pid)
        if child is not None and child.poll() is not None:
            _own.pop(self.pid, None)
            return None
        try:
            process = psutil.Process(self.pid)
            # psutil adds the time of boot, which moves by a little when the clock is set.
            if abs(process.create_time() - self.created_at) < 2.0 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            pass
        if child is not None:
            child.wait()
            _own.pop(self.pid, None)
        return None


@dataclass(frozen=True)
class Record:
    """What is written down about a child: who it is and who started it."""

    child: Identity
    owner: Identity
    stop_signal: int = signal.SIGTERM  # what ends it cleanly

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record in a file; None when there is none."""
        value = read_json(path)
        try:
            return cls(Identity(**value["child"]), Identity(**value["owner"]), value["stop_signal"])
        except (KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write it down."""
        make_folder(path.parent)
        write_json(path, asdict(self))


def end_orphan(path: Path, patience_seconds: float) -> None:
    """Stop the recorded child if the one who started it is gone: it may be about to end by itself, or never."""
    record = Record.read(path)
    if record is not None and record.owner.find() is None:
        stop(record.child, ((signal.Signals(record.stop_signal), patience_seconds),))


def spawn_detached(command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> Identity:
    """Start a process in its own session that outlives this one, its output appended to a log."""
    with log.open("ab") as output:
        child = _Child(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(env),
            cwd=cwd, start_new_session=True,
        )  # fmt: skip
    _own[child.pid] = child
    return Identity.of(child.pid)


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    output: Path | None = None,
    account: Account | None = None,
    end_signal: signal.Signals = signal.SIGTERM,
) -> Identity:
    """Start a child in its own session, what it prints appended to a log; with `output`, its stdout goes there.

    On Linux the kernel sends it `end_signal` when this process dies, however it dies. Elsewhere a child outlives a
    parent that was killed hard, and the next start finds it by its record and stops it.
    """

    def start() -> Identity:
        with log.open("ab") as errors, (output or log).open("ab") as prints:
            child = _Child(
                list(command), stdin=subprocess.DEVNULL, stdout=prints, stderr=errors, env=dict(env),
                cwd=cwd, start_new_session=True, preexec_fn=_die_with(os.getpid(), end_signal), **as_account(account),
            )  # fmt: skip
        _own[child.pid] = child
        return Identity.of(child.pid)

    # The signal follows the thread that forked, not the process: one thread that lives as long as we do forks them all.
    return _spawner(os.getpid()).submit(start).result()


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def as_account(account: Account | None) -> _As:
    """The arguments of `subprocess` that make a child run as the account."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def stop(child: Identity, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send one signal after the other until the process is gone, waiting seconds after each; kill it in the end."""
    for number, patience_seconds in (*signals, (signal.SIGKILL, 10.0)):
        process = child.find()
        if process is None:
            return
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if wait_for_end(child, patience_seconds):
            return


def exit_code(child: Identity) -> int | None:
    """How a child of this process ended; None while it runs. Ask it instead of `find`, which forgets the ending."""
    return _own[child.pid].poll()


def wait_for_end(process: Identity, timeout_seconds: float) -> bool:
    """Whether the process ended in time."""
    deadline = time.monotonic() + timeout_seconds
    while process.find() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@lru_cache(maxsize=1)
def _spawner(pid: int) -> ThreadPoolExecutor:  # by pid: a fork inherits the object without its thread
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _die_with(parent_pid: int, end_signal: signal.Signals) -> Callable[[], None] | None:
    if _libc is None:
        return None
    prctl = _libc.prctl

    def ask_kernel() -> None:  # runs between fork and exec, after the change of account, which would undo it
        prctl(_PR_SET_PDEATHSIG, int(end_signal), 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask_kernel
