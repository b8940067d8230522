"""Requests to where strangers say, made so that nobody can have this machine talk to an inner address.

A URL's name is looked up once, every address must be open, and the connection goes to one of these (the name stays in
`Host` and in TLS). No redirect is followed, and nothing takes longer than its time.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpcore

from orchestrator.domain.errors import JanusError
from orchestrator.domain.urls import IpAddress, OutboundUrl, UrlRefused, is_public

CONNECT_SECONDS = 5.0  # for one address, where a name has several
RESOLVERS = 16  # threads; a name whose servers are silent blocks one for as long as the system's resolver waits


class NoAddress(JanusError):
    """The name leads nowhere."""


def resolve_name(host: str, port: int) -> list[IpAddress]:
    """Every address of a name. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(address[0]) for *_, address in found]


class Outbound:
    """Any thread may ask.

    Args:
        instead: what messages say to do where an address is not open.
        resolve, may_connect, ssl_context: how names are looked up, which addresses are open, and whose certificates
            are good.
    """

    def __init__(
        self,
        *,
        instead: str,
        resolve: Callable[[str, int], Sequence[IpAddress]] = resolve_name,
        may_connect: Callable[[IpAddress], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._instead, self._resolve, self._may_connect = instead, resolve, may_connect
        self._ssl_context = ssl_context or httpcore.default_ssl_context()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    @contextmanager
    def stream(
        self,
        method: str,
        url: OutboundUrl,
        until: float,
        headers: Iterable[tuple[str, str]],
        content: bytes | None = None,
    ) -> Iterator[httpcore.Response]:
        """The answer, its body still to be read; a redirect is an answer like others.

        Args:
            until: when it must be over, by `time.monotonic()`.
        Raises:
            UrlRefused: an address is not open.
            NoAddress, TimeoutError, OSError, UnicodeError, and errors of httpcore.
        """
        backend = _PinnedBackend(self._addresses(url, until), until)
        target = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        sent = [("Host", url.origin.partition("://")[2]), *headers]
        with (
            httpcore.ConnectionPool(self._ssl_context, max_connections=1, network_backend=backend) as pool,
            pool.stream(method, target, headers=sent, content=content) as response,
        ):
            yield response

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _addresses(self, url: OutboundUrl, until: float) -> Sequence[IpAddress]:
        if url.address is not None:
            addresses: Sequence[IpAddress] = [url.address]
        else:
            looking_up = self._resolvers.submit(self._resolve, url.host, url.port)
            addresses = looking_up.result(timeout=max(until - time.monotonic(), 0))
        if not addresses:
            raise NoAddress(f"{url.origin} has no address")
        if not all(self._may_connect(address) for address in addresses):
            raise UrlRefused(f"{url.origin} leads to an address that is not public; {self._instead}")
        return addresses


class _PinnedBackend(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, whatever host is asked for; no operation goes on beyond `until`."""

    def __init__(self, addresses: Sequence[IpAddress], until: float) -> None:
        self._addresses, self._until = addresses, until
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        for address in self._addresses[:-1]:
            try:
                return self._connect(address, port, min(CONNECT_SECONDS, _seconds_to(self._until)))
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(self._addresses[-1], port, _seconds_to(self._until))

    def _connect(self, address: IpAddress, port: int, seconds: float) -> httpcore.NetworkStream:
        return _TimedStream(self._sockets.connect_tcp(str(address), port, seconds), self._until)


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every operation ends by `until`, so that a server that drips cannot hold it."""

    def __init__(self, inner: httpcore.NetworkStream, until: float) -> None:
        self._inner, self._until = inner, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _seconds_to(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _seconds_to(self._until))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, _seconds_to(self._until)), self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _seconds_to(until: float) -> float:
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout
    return seconds
