"""The real Postgres, Valkey and S3 on this machine, from wheels: no root, no Docker, about three seconds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.local.files import locked, make_folder
from orchestrator.local.passwords import get_passwords
from orchestrator.local.postgres import Postgres
from orchestrator.local.seaweed import BUCKET, Seaweed
from orchestrator.local.server import Server
from orchestrator.local.valkey import Valkey


class Servers:
    """The three servers of one folder.

    They listen on 127.0.0.1 only, and end when the process that started them ends. Data, ports and passwords stay in
    the folder: a later start finds them again. A second object for the same folder finds the servers running.
    """

    def __init__(self, home: Path) -> None:
        self.home = make_folder(home.expanduser().resolve())
        with locked(self.home / "servers.lock", 60.0, "making the passwords"):
            passwords = get_passwords(self.home)
        self.postgres = Postgres(self.home, passwords)
        self.valkey = Valkey(self.home, passwords)
        self.s3 = Seaweed(self.home, passwords)

    @property
    def all(self) -> tuple[Server, ...]:
        """The three, in the order in which they matter."""
        return (self.postgres, self.valkey, self.s3)

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Start those that do not run; returns when all three answer, with the database and the bucket `janus` made.

        Raises:
            ServerError: one did not start; it names the log. Those that did start are left running.
        """
        deadline = time.monotonic() + timeout_seconds
        with locked(self.home / "servers.lock", timeout_seconds, "starting the local servers"):
            patience_seconds = max(1.0, deadline - time.monotonic())
            with ThreadPoolExecutor(max_workers=len(self.all)) as pool:
                list(pool.map(lambda server: server.start(patience_seconds), self.all))

    def stop(self) -> None:
        """Stop all three cleanly; returns when they are gone."""
        with locked(self.home / "servers.lock", 60.0, "stopping the local servers"):
            self._each("stop")

    def kill(self) -> None:
        """End all three as a crash would."""
        self._each("kill")

    def environment(self) -> dict[str, str]:
        """What a server process must be told to use them."""
        return {
            "JANUS_DATABASE_URL": self.postgres.url,
            "JANUS_REDIS_URL": self.valkey.url,
            "JANUS_S3_ENDPOINT": self.s3.endpoint,
            "JANUS_S3_PUBLIC_ENDPOINT": self.s3.endpoint,
            "JANUS_S3_ACCESS_KEY": self.s3.passwords.s3_access_key,
            "JANUS_S3_SECRET_KEY": self.s3.passwords.s3_secret_key,
            "JANUS_S3_BUCKET": BUCKET,
        }

    def _each(self, action: str) -> None:
        with ThreadPoolExecutor(max_workers=len(self.all)) as pool:
            list(pool.map(lambda server: getattr(server, action)(), self.all))
