"""Images that strangers name by URL, fetched so that nobody can make this machine talk to an inner address.

Each hop: the URL is checked, its name is looked up once, every address must be public, and the connection goes to one
of these (the name stays in `Host` and in TLS). Nothing of ours is sent: no cookie, no proxy, no key.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from orchestrator.domain.urls import ImageUrl, IpAddress, UrlRefused, check_url, is_public
from workers.errors import BadInput

MAX_REDIRECTS = 5
CONNECT_SECONDS = 5.0  # for one address, where a name has several
RESOLVERS = 16  # threads; a name whose servers are silent blocks one for as long as the system's resolver waits
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = (
    ("User-Agent", "janus-batch"),
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
)


class _Unreachable(Exception):
    """The URL gave no image; the message says what it did instead."""


def resolve_name(host: str, port: int) -> list[IpAddress]:
    """Every address of a name. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(address[0]) for *_, address in found]


class UrlFetcher:
    """Any thread may fetch.

    Args:
        seconds: for one image, from the first look-up to the last byte, redirects included.
        ports, hosts: as of `check_url`.
        resolve, may_connect, ssl_context: how names are looked up, which addresses are open, and whose certificates
            are good.
    """

    def __init__(
        self,
        *,
        seconds: float,
        ports: Sequence[int],
        hosts: Sequence[str] = (),
        resolve: Callable[[str, int], Sequence[IpAddress]] = resolve_name,
        may_connect: Callable[[IpAddress], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._seconds, self._ports, self._hosts = seconds, ports, hosts
        self._resolve, self._may_connect = resolve, may_connect
        self._ssl_context = ssl_context or httpcore.default_ssl_context()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    def fetch(self, text: str, *, place: str, max_bytes: int) -> bytes:
        """The bytes that a URL gives. Raises BadInput: url_refused, url_unreachable, image_too_large."""
        until = time.monotonic() + self._seconds
        try:
            for _ in range(MAX_REDIRECTS + 1):
                url = check_url(text, ports=self._ports, hosts=self._hosts)
                answer = self._get(url, max_bytes, until)
                if isinstance(answer, bytes):
                    return answer
                text = url.join(answer)
            raise _Unreachable(f"{url.origin} is the end of more than {MAX_REDIRECTS} redirects")
        except UrlRefused as error:
            raise BadInput("url_refused", f"{place}: {error}.") from None
        except _Unreachable as error:
            raise BadInput("url_unreachable", f"{place}: {error}.") from None
        except _TooLarge:
            raise BadInput(
                "image_too_large",
                f"{place}: {url.origin} gives more than {max_bytes} bytes; this server accepts no more "
                "(JANUS_MAX_IMAGE_BYTES). Shrink it.",
            ) from None
        except (TimeoutError, httpcore.TimeoutException):
            message = f"{url.origin} took longer than {self._seconds:g} s (JANUS_IMAGE_URL_SECONDS)"
            raise BadInput("url_unreachable", f"{place}: {message}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, UnicodeError) as error:
            message = f"{url.origin} could not be reached ({type(error).__name__}: {error})"
            raise BadInput("url_unreachable", f"{place}: {message[:1000]}.") from None

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _get(self, url: ImageUrl, max_bytes: int, until: float) -> bytes | str:
        """The body, or where a redirect leads."""
        backend = _PinnedBackend(self._addresses(url, until), until)
        target = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        headers = [("Host", url.origin.partition("://")[2]), *HEADERS]
        with (
            httpcore.ConnectionPool(self._ssl_context, max_connections=1, network_backend=backend) as pool,
            pool.stream("GET", target, headers=headers) as response,
        ):
            given = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in given:
                return given[b"location"]
            if response.status != 200:
                raise _Unreachable(f"{url.origin} answered {response.status}")
            if given.get(b"content-encoding", "identity").lower() != "identity":
                raise _Unreachable(f"{url.origin} sends its answer compressed although that was not asked for")
            return _read(response.iter_stream(), given.get(b"content-length", ""), max_bytes)

    def _addresses(self, url: ImageUrl, until: float) -> Sequence[IpAddress]:
        if url.address is not None:
            addresses: Sequence[IpAddress] = [url.address]
        else:
            looking_up = self._resolvers.submit(self._resolve, url.host, url.port)
            addresses = looking_up.result(timeout=max(until - time.monotonic(), 0))
        if not addresses:
            raise _Unreachable(f"{url.origin} has no address")
        if not all(self._may_connect(address) for address in addresses):
            raise UrlRefused(f"{url.origin} leads to an address that is not public; upload the image instead")
        return addresses


class _TooLarge(Exception):
    """More bytes than allowed."""


def _read(chunks: Iterable[bytes], content_length: str, max_bytes: int) -> bytes:
    if content_length.isdecimal() and int(content_length[:20]) > max_bytes:
        raise _TooLarge
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > max_bytes:
            raise _TooLarge
    return bytes(data)


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
