"""Which URLs are fetched at all, and which addresses are open."""

from __future__ import annotations

import ipaddress

import pytest

from orchestrator.domain.urls import OutboundUrl, UrlRefused, check_url, is_public, is_url

PORTS = (80, 443)

CLOSED = {
    "this host": "0.0.0.0",
    "private 10": "10.1.2.3",
    "private 172": "172.31.255.255",
    "private 192": "192.168.0.1",
    "CGNAT": "100.64.0.1",
    "Alibaba metadata": "100.100.100.200",
    "loopback": "127.0.0.1",
    "all of loopback": "127.255.255.254",
    "link-local": "169.254.0.1",
    "metadata": "169.254.169.254",
    "Azure": "168.63.129.16",
    "Oracle metadata": "192.0.0.192",
    "documentation": "203.0.113.7",
    "benchmarks": "198.18.0.1",
    "6to4 relay": "192.88.99.1",
    "multicast": "224.0.0.1",
    "reserved": "250.0.0.1",
    "broadcast": "255.255.255.255",
    "unspecified 6": "::",
    "loopback 6": "::1",
    "link-local 6": "fe80::1",
    "unique local": "fc00::1",
    "AWS metadata 6": "fd00:ec2::254",
    "multicast 6": "ff02::1",
    "site-local": "fec0::1",
    "documentation 6": "2001:db8::1",
    "documentation 6, new": "3fff::1",
    "discard": "100::1",
    "mapped": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:a9fe:a9fe",
    "mapped, public": "::ffff:8.8.8.8",
    "compatible": "::127.0.0.1",
    "6to4 of loopback": "2002:7f00:1::",
    "6to4 of metadata": "2002:a9fe:a9fe::1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64, local": "64:ff9b:1::7f00:1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "ISATAP": "2606:4700::5efe:7f00:1",
    "ISATAP, global": "2606:4700::200:5efe:a00:1",
    "SRv6": "5f00::1",
}
OPEN = ("1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1")


@pytest.mark.parametrize("address", CLOSED.values(), ids=CLOSED)
def test_addresses_that_are_not_everybodys_are_closed(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OPEN)
def test_public_addresses_are_open(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


REFUSED = {
    "ftp": ("ftp://example.org/a.jpg", "scheme"),
    "file": ("file:///etc/passwd", "scheme"),
    "gopher": ("gopher://example.org:70/_x", "scheme"),
    "data": ("data://image/png;base64,AAAA", "scheme"),
    "s3": ("s3://bucket/a.jpg", "scheme"),
    "user": ("http://user@example.org/", "user"),
    "password": ("http://user:secret@example.org/", "user"),
    "name as user": ("http://example.org@127.0.0.1/", "user"),
    "empty user": ("http://@127.0.0.1/", "user"),
    "decimal": ("http://2130706433/", "number"),
    "octal": ("http://0177.0.0.1/", "number"),
    "octal, long": ("http://017700000001/", "number"),
    "hex": ("http://0x7f000001/", "number"),
    "hex parts": ("http://0x7f.0x0.0x0.0x1/", "number"),
    "short": ("http://127.1/", "number"),
    "short, three": ("http://127.0.1/", "number"),
    "leading zeros": ("http://127.000.000.001/", "number"),
    "too large": ("http://256.256.256.256/", "number"),
    "name that ends in a number": ("http://example.1/", "number"),
    "name that ends in hex": ("http://example.0x1/", "number"),
    "full-width": ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
    "circled": ("http://\u2460\u2461\u2466.0.0.1/", "ASCII"),
    "ideographic stop": ("http://127\u30020\u30020\u30021/", "ASCII"),
    "percent in the host": ("http://%31%32%37.0.0.1/", "number"),
    "percent in a name": ("http://ex%61mple.org/", "not a name"),
    "zone": ("http://[fe80::1%25eth0]/", "IPv6"),
    "no address in brackets": ("http://[::g]/", "IPv6|cannot be read"),
    "future address": ("http://[v1.x]/", "IPv6|cannot be read"),
    "brackets open": ("http://[::1/", "IPv6|cannot be read"),
    "no host": ("http:///a.jpg", "not a name"),
    "empty label": ("http://a..b/", "not a name"),
    "only dots": ("http://../", "not a name"),
    "long label": (f"http://{'a' * 64}.org/", "not a name"),
    "long name": (f"http://{'a.' * 130}org/", "not a name"),
    "port": ("http://example.org:6379/", "port 6379"),
    "ssh": ("https://example.org:22/", "port 22"),
    "port 0": ("http://example.org:0/", "port 0"),
    "large port": ("http://example.org:65536/", "cannot be read"),
    "minus port": ("http://example.org:-1/", "cannot be read"),
    "port in words": ("http://example.org:http/", "cannot be read"),
    "space": ("http://example.org/a b", "space"),
    "line end": ("http://example.org/\r\nHost: inner", "control"),
    "tab": ("http://exa\tmple.org/", "control"),
    "zero": ("http://example.org\x00.inner/", "control"),
    "backslash": ("http://example.org\\@127.0.0.1/", "backslash"),
    "long": ("http://example.org/" + "a" * 4000, "characters"),
    "no URL": ("example.org/a.jpg", "scheme"),
    "nothing": ("", "scheme"),
}


@pytest.mark.parametrize(("url", "says"), REFUSED.values(), ids=REFUSED)
def test_urls_that_are_refused_by_their_looks(url: str, says: str) -> None:
    with pytest.raises(UrlRefused, match=says):
        check_url(url, ports=PORTS)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Example.ORG", OutboundUrl("http", "example.org", 80, "/")),
        ("HTTPS://example.org./a?b=c#d", OutboundUrl("https", "example.org", 443, "/a?b=c")),
        ("https://example.org:80/ü%20x", OutboundUrl("https", "example.org", 80, "/%C3%BC%20x")),
        ("http://8.8.8.8/", OutboundUrl("http", "8.8.8.8", 80, "/")),
        ("http://[2606:4700::0001]:443/", OutboundUrl("http", "2606:4700::1", 443, "/")),
        ("http://xn--bcher-kva.example/x", OutboundUrl("http", "xn--bcher-kva.example", 80, "/x")),
        ("http://localhost/", OutboundUrl("http", "localhost", 80, "/")),  # a name: where it leads is looked at later
    ],
)
def test_parts_of_a_url(url: str, expected: OutboundUrl) -> None:
    assert check_url(url, ports=PORTS) == expected


def test_hosts_may_be_limited() -> None:
    hosts = ["images.example.org", ".Example.com"]
    for good in ("http://images.example.org/", "http://a.example.com/", "http://a.b.EXAMPLE.com/"):
        check_url(good, ports=PORTS, hosts=hosts)
    for bad in (
        "http://example.org/",
        "http://example.com/",
        "http://evilexample.com/",
        "http://images.example.org.evil/",
    ):
        with pytest.raises(UrlRefused, match="JANUS_IMAGE_URL_HOSTS"):
            check_url(bad, ports=PORTS, hosts=hosts)


def test_messages_hold_no_path_and_no_query() -> None:
    with pytest.raises(UrlRefused) as caught:
        check_url("https://example.org:22/folder?signature=secret", ports=PORTS)
    assert "secret" not in str(caught.value)
    assert "folder" not in str(caught.value)


def test_names_and_urls_are_told_apart() -> None:
    assert [is_url(name) for name in ("http://x", "HTTPS://x", "s3://x", "file:///x")] == [True] * 4
    assert [is_url(name) for name in ("a.jpg", "a/b://c", "http:/x", "http", "//x", "")] == [False] * 6
