"""Loopback ports: found once, remembered in the stack's folder, found anew only when something else has taken them."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from orchestrator.local.files import locked, read_json, write_json

LOOPBACK = "127.0.0.1"
# Both the port and its gRPC port stay below the range from which Linux and macOS take the ports of outgoing
# connections: a client that keeps trying to reach a stopped server could otherwise be given the server's own port,
# and the server could not come back.
PORT_RANGE = range(15_000, 22_000)
GRPC_OFFSET = 10_000  # weed's parts expect each other's gRPC port this far above the other one


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now, and on its gRPC port."""
    leftovers = Path("/tmp").glob(f"seaweedfs-*-{port + GRPC_OFFSET}.sock")  # noqa: S108  # where weed's sockets are
    return can_listen(port) and can_listen(port + GRPC_OFFSET) and not any(leftovers)


def can_listen(port: int) -> bool:
    """Whether nobody listens on this port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


class Ports:
    """The ports of one stack, by name."""

    def __init__(self, home: Path) -> None:
        self._path = home / "ports.json"
        self._lock = home / "ports.lock"

    def find(self, name: str) -> int | None:
        """The remembered port."""
        port = read_json(self._path).get(name)
        return port if isinstance(port, int) else None

    def claim(self, names: Iterable[str], patience_seconds: float = 0.0) -> dict[str, int]:
        """A free port for each name: the remembered one where nobody else has taken it.

        Args:
            patience_seconds: how long a remembered port may take to become free, when its last holder is just ending.
        """
        with locked(self._lock, 60.0, "choosing ports"):
            return self._claim(tuple(names), time.monotonic() + patience_seconds)

    def _claim(self, names: tuple[str, ...], deadline: float) -> dict[str, int]:
        remembered = read_json(self._path)
        claimed: dict[str, int] = {}
        for name in names:
            port = remembered.get(name)
            while isinstance(port, int) and not is_free(port) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not isinstance(port, int) or not is_free(port):
                port = _pick(taken={*remembered.values(), *claimed.values()})
            claimed[name] = port
        if any(remembered.get(name) != port for name, port in claimed.items()):
            write_json(self._path, {**remembered, **claimed})
        return claimed


def _pick(taken: set[object]) -> int:
    for port in random.SystemRandom().sample(PORT_RANGE, k=len(PORT_RANGE)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port on {LOOPBACK} between {PORT_RANGE.start} and {PORT_RANGE.stop}")
