"""Which addresses a server of ours may fetch for a stranger. Rules only: who resolves and connects asks them.

A name is looked up once; every address that it has must be public; the connection goes to one of these.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from orchestrator.domain.errors import JanusError

MAX_URL_LENGTH = 4000
DEFAULT_PORTS = {"http": 80, "https": 443}
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What the IANA registries of special-purpose addresses list as not for everybody, and Azure's inner service address.
_CLOSED_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# Of IPv6 only the part that is handed out to everybody is open, which leaves out loopback, link-local, unique local
# (fd00:ec2::254 too), multicast, and what holds an IPv4 address: mapped, compatible, translated (64:ff9b::/96).
_OPEN_IPV6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # then comes an IPv4 address

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class UrlRefused(JanusError):
    """The URL, or where it leads, is not one that we fetch."""


@dataclass(frozen=True)
class OutboundUrl:
    """A URL that is well-formed and allowed, in the parts that a request is made of.

    host: lower case, without brackets; an address or a name. target: path and query, ASCII, beginning with `/`.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> IpAddress | None:
        """The host where it is an address."""
        return ipaddress.ip_address(self.host) if ":" in self.host or _is_numeric(self.host) else None

    @property
    def origin(self) -> str:
        """For messages: without path and query, which may hold secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}")

    def join(self, location: str) -> str:
        """Where a redirect leads. Raises UrlRefused."""
        try:
            return urljoin(self.origin + self.target, location)
        except ValueError as error:
            raise UrlRefused(f"a redirect leads to no URL ({error})") from None


def is_url(name: str) -> bool:
    """True where an item's image is written as a URL of any scheme rather than as a name."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", name) is not None


def check_url(text: str, *, ports: Sequence[int] | None, hosts: Sequence[str] = ()) -> OutboundUrl:
    """The URL's parts.

    Args:
        ports: those that are allowed; None means any.
        hosts: those that are allowed, `.example.org` for all below it; none means any.
    Raises UrlRefused: says what is wrong, without the URL's path and query.
    """
    if len(text) > MAX_URL_LENGTH:
        raise UrlRefused(f"the URL has {len(text)} characters; at most {MAX_URL_LENGTH} are accepted")
    if re.search(r"[\x00-\x20\x7f\\]", text):
        raise UrlRefused("the URL holds a space, a control character or a backslash; write them as %20, %5C and so on")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UrlRefused(f"the URL cannot be read ({error})") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise UrlRefused(f"the URL's scheme is {parts.scheme[:20]!r}; only http and https are fetched")
    if "@" in parts.netloc:
        raise UrlRefused("the URL holds a user or a password; none is sent to anybody")
    url = OutboundUrl(parts.scheme, _host(parts), DEFAULT_PORTS[parts.scheme] if port is None else port, _target(parts))
    if url.port == 0:
        raise UrlRefused(f"{url.origin} names port 0, which is none")
    if ports is not None and url.port not in ports:
        allowed = ", ".join(str(each) for each in ports)
        raise UrlRefused(f"{url.origin} names port {url.port}; only {allowed} are fetched (JANUS_IMAGE_URL_PORTS)")
    if hosts and not any(_matches(url.host, pattern.lower()) for pattern in hosts):
        raise UrlRefused(f"{url.origin} is not among the hosts of this server (JANUS_IMAGE_URL_HOSTS)")
    return url


def is_public(address: IpAddress) -> bool:
    """True for an address that is open to everybody on the internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_IPV4)
    if getattr(address, "scope_id", None) or address not in _OPEN_IPV6:
        return False
    holds_ipv4 = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return not holds_ipv4 and not any(address in network for network in _CLOSED_IPV6)


def _host(parts: SplitResult) -> str:
    """The host, which is an address in its plain form or a name that is no number in disguise."""
    host = (parts.hostname or "").lower()
    if parts.netloc.startswith("["):
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise UrlRefused(f"the URL's host [{host[:60]}] is no IPv6 address")
        return str(address)
    host = host.removesuffix(".")
    if not host.isascii():
        raise UrlRefused(f"the URL's host {host[:60]!r} is not ASCII; write its punycode (xn--…)")
    if _is_numeric(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise UrlRefused(
                f"the URL's host {host[:60]!r} is a number; an address is written as four decimals, and no name "
                "ends in a number"
            ) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise UrlRefused(f"the URL's host {host[:60]!r} is not a name")
    return host


def _is_numeric(host: str) -> bool:
    """True for what C libraries take for an IPv4 address: 127.1, 0x7f.1, 017700000001, 2130706433."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _target(parts: SplitResult) -> str:
    """Path and query as they go over the wire: what is not ASCII is percent-encoded, the fragment stays here."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return quote(target, safe="%/:?#[]@!$&'()*+,;=~", errors="replace")


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern) if pattern.startswith(".") else host == pattern
