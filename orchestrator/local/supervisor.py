"""Keeps the local stack running: the servers, the API, the dispatcher and the workers of one folder.

python -m orchestrator.local.supervisor HOME

SIGTERM stops everything, workers first. SIGHUP reads `models.json` again and lets the workers restart with it. When it
is killed, the kernel ends its children (on Linux; elsewhere the next start stops them).
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from orchestrator.local import children
from orchestrator.local.children import Identity, Record
from orchestrator.local.commands import Commands, with_this_python
from orchestrator.local.errors import LocalError, StackBusyError, StackError, last_lines
from orchestrator.local.files import locked, log_path, make_folder, write_private
from orchestrator.local.ports import LOOPBACK, Ports
from orchestrator.local.program import Program
from orchestrator.local.servers import Servers
from orchestrator.local.state import ProcessState, StackState, Wanted

ROUND_SECONDS = 0.2
WORKER_PATIENCE_SECONDS = 40.0  # a worker writes what it has and gives its shards back in up to 30 s
PATIENCE_SECONDS = 10.0
ONE_SHOT_SECONDS = 120.0


class Stopped(Exception):
    """A signal asked for the end while the stack was starting."""


class Supervisor:
    """Runs until it is told to stop."""

    def __init__(self, home: Path, commands: Commands) -> None:
        self.home, self.commands = home, commands
        self.servers = Servers(home)
        self.server_restarts = {server.name: 0 for server in self.servers.all}
        self.api_port = 0
        self.programs: list[Program] = []  # the API and the dispatcher
        self.workers: list[Program] = []
        self.wanted = Wanted.read(home)
        self.state = StackState()
        self._stop = self._reload = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGHUP reads the models again, anything else stops."""
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stop = True

    def run(self) -> None:
        """Start, keep running, stop.

        Raises:
            LocalError: it could not start; what had been started is stopped again.
        """
        try:
            self._start()
            while not self._stop:
                self._round()
                time.sleep(ROUND_SECONDS)
            self._end("stopped")
        except Stopped:
            self._end("stopped")
        except BaseException as error:
            self._end("failed", str(error) if isinstance(error, LocalError) else traceback.format_exc())
            raise

    def _start(self) -> None:
        self.api_port = Ports(self.home).claim(["api"], patience_seconds=2.0)["api"]
        self._write("starting")
        self.servers.start()
        self._write("starting")
        self._one_shot("migrate", with_this_python(self.commands.migrate))
        key_path = self.home / "api_key"
        if not key_path.exists():
            write_private(key_path, self._one_shot("ensure-key", with_this_python(self.commands.ensure_key)) + "\n")
        for name, command in (("api", self.commands.api), ("dispatcher", self.commands.dispatcher)):
            self.programs.append(self._program(name, command, PATIENCE_SECONDS))
        self._set_workers()

    def _round(self) -> None:
        if self._reload:
            self._reload = False
            self.wanted = Wanted.read(self.home)
            self._set_workers()
        for server in self.servers.all:
            if not server.is_alive():
                self._restart_server(server.name)
        now = time.monotonic()
        for program in (*self.programs, *self.workers):
            program.tick(now)
        self._write("running")

    def _restart_server(self, name: str) -> None:
        self.server_restarts[name] += 1
        try:
            getattr(self.servers, name).start(timeout_seconds=20.0)
        except LocalError as error:  # tried again in the next round
            print(error, file=sys.stderr, flush=True)  # noqa: T201

    def _set_workers(self) -> None:
        now = time.monotonic()
        count = self.wanted.workers if self.wanted.models else 0
        for worker in self.workers[count:]:
            worker.stop(now)
        for worker in self.workers[:count]:
            worker.replace(self._environment(), now)
        while len(self.workers) < count:
            name = f"worker-{len(self.workers) + 1}"
            self.workers.append(self._program(name, self.commands.worker, WORKER_PATIENCE_SECONDS))

    def _program(self, name: str, command: Sequence[str], patience_seconds: float) -> Program:
        words = with_this_python(command)
        return Program(self.home, name, words, self._environment(), patience_seconds=patience_seconds)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "JANUS_WORKER_ID"}  # one for each
        return {
            **inherited,
            **self.servers.environment(),
            "JANUS_HOME": str(self.home),
            "JANUS_API_HOST": LOOPBACK,
            "JANUS_API_PORT": str(self.api_port),
            "JANUS_WORKER_MODELS": ",".join(self.wanted.models),
            "PYTHONUNBUFFERED": "1",
        }

    def _one_shot(self, name: str, command: list[str]) -> str:
        """Run a command to its end; the last line that it printed."""
        log, output = log_path(self.home, name), self.home / "run" / f"{name}.out"
        write_private(output, "")  # a key is printed here
        child = children.spawn(command, log=log, env=self._environment(), cwd=self.home, output=output)
        deadline = time.monotonic() + ONE_SHOT_SECONDS
        while (code := children.exit_code(child)) is None:
            if self._stop or time.monotonic() > deadline:
                children.stop(child, ((signal.SIGTERM, 5.0),))
                if self._stop:
                    raise Stopped
                raise StackError(f"`{' '.join(command)}` took more than {ONE_SHOT_SECONDS:.0f} s. Its log is {log}.")
            time.sleep(0.02)
        lines = output.read_text().split("\n")
        output.unlink()
        if code != 0:
            raise StackError(f"`{' '.join(command)}` ended with {code}. Its log is {log}; the end:\n{last_lines(log)}")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _end(self, phase: str, error: str = "") -> None:
        self._write("stopping", error)
        for group in (self.workers, *([program] for program in reversed(self.programs))):  # dispatcher, then API
            now = time.monotonic()
            for program in group:
                program.stop(now)
            while any(program.is_alive() for program in group):
                time.sleep(0.02)
                for program in group:
                    program.tick(time.monotonic())
        self.servers.stop()
        self._write(phase, error)

    def _write(self, phase: str, error: str = "") -> None:
        servers = [ProcessState(s.name, s.pid, self.server_restarts[s.name], s.port) for s in self.servers.all]
        programs = [
            ProcessState(p.name, p.pid, p.restarts, self.api_port if p.name == "api" else None, p.ending, p.quick_ends)
            for p in (*self.programs, *self.workers)
            if p.pid is not None or not p.ending
        ]
        url = f"http://{LOOPBACK}:{self.api_port}"
        state = StackState(phase, error, url, tuple(self.wanted.models), (*servers, *programs))
        if state != self.state:
            state.write(self.home)
            self.state = state


def supervise(home: Path, commands: Commands) -> int:
    """Run the stack of a folder until a signal ends it; the exit status."""
    make_folder(home)
    try:
        with locked(home / "supervisor.lock", 2.0, "starting the supervisor"):
            me = Identity.of(os.getpid())
            Record(me, me).write(home / "supervisor.json")
            supervisor = Supervisor(home, commands)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, supervisor.on_signal)
            supervisor.run()
    except (StackBusyError, LocalError) as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]).expanduser().resolve(), Commands()))
