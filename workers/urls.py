"""Images that strangers name by URL, fetched so that nobody can make this machine talk to an inner address.

Each hop is checked and connected to anew (`orchestrator/outbound.py`). Nothing of ours is sent: no cookie, no proxy,
no key.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Sequence

import httpcore

from orchestrator.domain.urls import IpAddress, OutboundUrl, UrlRefused, check_url, is_public
from orchestrator.outbound import NoAddress, Outbound, resolve_name
from workers.errors import BadInput

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = (
    ("User-Agent", "janus-batch"),
    ("Accept", "image/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
)


class _Unreachable(Exception):
    """The URL gave no image; the message says what it did instead."""


class UrlFetcher:
    """Any thread may fetch.

    Args:
        seconds: for one image, from the first look-up to the last byte, redirects included.
        ports, hosts: as of `check_url`.
        resolve, may_connect, ssl_context: as of `Outbound`.
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
        self._outbound = Outbound(
            instead="upload the image instead", resolve=resolve, may_connect=may_connect, ssl_context=ssl_context
        )

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
        except (_Unreachable, NoAddress) as error:
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
        self._outbound.close()

    def _get(self, url: OutboundUrl, max_bytes: int, until: float) -> bytes | str:
        """The body, or where a redirect leads."""
        with self._outbound.stream("GET", url, until, HEADERS) as response:
            given = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in given:
                return given[b"location"]
            if response.status != 200:
                raise _Unreachable(f"{url.origin} answered {response.status}")
            if given.get(b"content-encoding", "identity").lower() != "identity":
                raise _Unreachable(f"{url.origin} sends its answer compressed although that was not asked for")
            return _read(response.iter_stream(), given.get(b"content-length", ""), max_bytes)


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
