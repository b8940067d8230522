"""Fetching by URL, on real servers: what is allowed arrives, and nobody gets this machine to talk to an inner address.

Names are resolved by a table and the loopback address of the test's own servers is open; both are given by argument,
as they are nowhere else.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import trustme

from orchestrator.domain.urls import IpAddress, is_public
from tests.unit.test_urls import CLOSED, REFUSED
from workers.errors import BadInput
from workers.urls import MAX_REDIRECTS, UrlFetcher

OURS = "127.0.0.9"  # where the test's servers listen, open to the fetcher of these tests alone
PICTURE = b"the bytes of a picture"
PLACE = "items[5].image"
TLS = ssl.create_default_context()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PICTURE), PICTURE)


class Server:
    """Answers each connection by a function that is given the request's head and the socket."""

    def __init__(
        self, answer: Callable[[bytes, socket.socket], bytes], address: str = OURS, tls: ssl.SSLContext | None = None
    ) -> None:
        self._answer, self._tls = answer, tls
        self.requests: list[bytes] = []
        self.connections = 0
        self.names: list[str | None] = []
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
                head += piece
            self.requests.append(head)
            connection.sendall(self._answer(head, connection))
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(answer: bytes | Callable[[bytes, socket.socket], bytes], **values: object) -> Server:
        servers.append(Server(answer if callable(answer) else lambda *_: answer, **values))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Names:
    """A table of names. Each look-up takes the next of a name's answers, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(several) for name, several in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[IpAddress]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(address) for address in answer]


def may_connect(address: IpAddress) -> bool:
    return is_public(address) or str(address) == OURS


def fetcher(names: Callable[[str, int], Sequence[IpAddress]], *ports: int, **values: object) -> UrlFetcher:
    given = {"seconds": 10, "resolve": names, "may_connect": may_connect, "ssl_context": TLS} | values
    return UrlFetcher(ports=(80, 443, *ports), **given)


def fetch(fetching: UrlFetcher, url: str, max_bytes: int = 1000) -> bytes:
    return fetching.fetch(url, place=PLACE, max_bytes=max_bytes)


def refusal(fetching: UrlFetcher, url: str, max_bytes: int = 1000) -> tuple[str, str]:
    with pytest.raises(BadInput) as caught:
        fetch(fetching, url, max_bytes)
    assert str(caught.value).startswith(PLACE)
    return caught.value.code, str(caught.value)


def test_picture_arrives_by_name_and_by_address(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    names = Names(pictures_test=[[OURS]])
    fetching = fetcher(names, server.port)
    assert fetch(fetching, f"http://pictures.test:{server.port}/a/b.jpg?c=d#e") == PICTURE
    assert fetch(fetching, f"http://{OURS}:{server.port}/") == PICTURE
    assert names.asked == ["pictures.test"]
    head = server.requests[0]
    assert head.startswith(b"GET /a/b.jpg?c=d HTTP/1.1\r\n")
    assert b"\r\nHost: pictures.test:%d\r\n" % server.port in head
    assert b"\r\nAccept-Encoding: identity\r\n" in head
    assert not any(word in head.lower() for word in (b"cookie", b"authorization", b"referer"))


@pytest.mark.parametrize("address", CLOSED.values(), ids=CLOSED)
def test_every_closed_address_is_refused_as_url_and_as_what_a_name_leads_to(address: str) -> None:
    fetching = UrlFetcher(seconds=10, ports=(80,), resolve=Names(inner_test=[[address]]), ssl_context=TLS)
    for url in (f"http://[{address}]/" if ":" in address else f"http://{address}/", "http://inner.test/"):
        code, message = refusal(fetching, url)
        assert code == "url_refused"
        assert "not public" in message


@pytest.mark.parametrize(("url", "says"), REFUSED.values(), ids=REFUSED)
def test_no_name_of_a_refused_url_is_looked_up(url: str, says: str) -> None:
    names = Names()
    assert refusal(fetcher(names), url)[0] == "url_refused"
    assert names.asked == []


def test_inner_server_hears_nothing(serve: Callable[..., Server]) -> None:
    """A real one on the loopback address, with the fetcher as a worker has it but for the ports."""
    inner = serve(OK, address="127.0.0.1")
    fetching = UrlFetcher(seconds=10, ports=(80, inner.port))
    for host in ("127.0.0.1", "localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0", "0x7f.1"):
        assert refusal(fetching, f"http://{host}:{inner.port}/")[0] == "url_refused"
    assert inner.connections == 0


def test_name_that_leads_to_public_and_inner_addresses_is_refused(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    for answer in (["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], [OURS, "::1"]):
        assert refusal(fetcher(Names(mixed_test=[answer]), server.port), f"http://mixed.test:{server.port}/")[0] == (
            "url_refused"
        )
    assert server.connections == 0


def test_name_that_changes_between_look_ups_is_looked_up_once(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    inner = serve(OK, address="127.0.0.1")
    names = Names(rebinding_test=[[OURS], ["127.0.0.1"]])
    assert fetch(fetcher(names, server.port), f"http://rebinding.test:{server.port}/") == PICTURE
    assert names.asked == ["rebinding.test"]
    assert inner.connections == 0


def test_name_that_changes_between_redirects_is_refused(serve: Callable[..., Server]) -> None:
    server = serve(redirect_to("/again"))
    names = Names(rebinding_test=[[OURS], ["127.0.0.1"]])
    assert refusal(fetcher(names, server.port), f"http://rebinding.test:{server.port}/")[0] == "url_refused"
    assert (len(names.asked), server.connections) == (2, 1)


def redirect_to(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(serve: Callable[..., Server], status: int) -> None:
    server = serve(lambda head, _: OK if head.startswith(b"GET /b/") else redirect_to("/b/c.jpg", status))
    assert fetch(fetcher(Names(a_test=[[OURS]]), server.port), f"http://a.test:{server.port}/a") == PICTURE


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "//10.0.0.1/",
        "http://2130706433/",
        "http://inner.test/",
        "http://user:secret@a.test/",
        "http://a.test:6379/",
        "ftp://a.test/",
        "file:///etc/passwd",
        "gopher://a.test/",
        "http://[::1",
        "http://a.test/\x80 \x01",
    ],
)
def test_redirect_to_what_is_refused_is_refused(serve: Callable[..., Server], location: str) -> None:
    server = serve(redirect_to(location))
    fetching = fetcher(Names(a_test=[[OURS]], inner_test=[["192.168.1.1"]]), server.port)
    code, _ = refusal(fetching, f"http://a.test:{server.port}/")
    assert code in ("url_refused", "url_unreachable")  # a header that is no header never becomes a URL
    assert code == "url_refused" or "\x01" in location
    assert server.connections == 1


def test_redirects_have_an_end(serve: Callable[..., Server]) -> None:
    server = serve(redirect_to("/again"))
    code, message = refusal(fetcher(Names(a_test=[[OURS]]), server.port), f"http://a.test:{server.port}/")
    assert (code, server.connections) == ("url_unreachable", MAX_REDIRECTS + 1)
    assert "redirects" in message


def test_hosts_are_looked_at_on_each_hop(serve: Callable[..., Server]) -> None:
    server = serve(redirect_to("http://b.test/"))
    fetching = fetcher(Names(a_test=[[OURS]], b_test=[[OURS]]), server.port, hosts=["a.test"])
    assert refusal(fetching, f"http://a.test:{server.port}/")[0] == "url_refused"


def test_too_many_bytes_are_refused_whether_announced_or_not(serve: Callable[..., Server]) -> None:
    def endless(head: bytes, connection: socket.socket) -> bytes:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))

    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"ff\r\n"
        + bytes(255)
        + b"\r\n"
        + b"ffffff\r\n"
        + bytes(2000),
        endless,
    ):
        server = serve(answer)
        code, message = refusal(fetcher(Names(a_test=[[OURS]]), server.port), f"http://a.test:{server.port}/")
        assert (code, "JANUS_MAX_IMAGE_BYTES" in message) == ("image_too_large", True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_answers_that_are_no_picture_fail_with_a_sentence(serve: Callable[..., Server], answer: bytes) -> None:
    server = serve(answer)
    code, message = refusal(fetcher(Names(a_test=[[OURS]]), server.port), f"http://a.test:{server.port}/?secret")
    assert code == "url_unreachable"
    assert "a.test" in message
    assert "secret" not in message


def drip(head: bytes, connection: socket.socket) -> bytes:
    """A byte now and then, each in time for a limit that looks at single reads."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def drip_body(head: bytes, connection: socket.socket) -> bytes:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def early_hints(head: bytes, connection: socket.socket) -> bytes:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.02)


def silent(head: bytes, connection: socket.socket) -> bytes:
    time.sleep(5)
    return b""


@pytest.mark.parametrize("answer", [drip, drip_body, early_hints, silent])
def test_slow_servers_are_left_when_the_time_is_over(
    serve: Callable[..., Server], answer: Callable[..., bytes]
) -> None:
    server = serve(answer)
    fetching = fetcher(Names(a_test=[[OURS]]), server.port, seconds=0.5)
    code, message = refusal(fetching, f"http://a.test:{server.port}/", max_bytes=10**9)
    assert code == "url_unreachable"
    assert "JANUS_IMAGE_URL_SECONDS" in message


def test_redirects_share_one_time(serve: Callable[..., Server]) -> None:
    def slow(head: bytes, connection: socket.socket) -> bytes:
        time.sleep(0.3)
        return redirect_to("/again")

    server = serve(slow)
    code, message = refusal(fetcher(Names(a_test=[[OURS]]), server.port, seconds=0.5), f"http://a.test:{server.port}/")
    assert (code, "JANUS_IMAGE_URL_SECONDS" in message) == ("url_unreachable", True)
    assert server.connections <= 2


def test_silent_name_server_is_left_when_the_time_is_over() -> None:
    asked = threading.Event()

    def resolve(host: str, port: int) -> list[IpAddress]:
        asked.wait(5)
        return []

    fetching = fetcher(resolve, seconds=0.2)
    assert "JANUS_IMAGE_URL_SECONDS" in refusal(fetching, "http://a.test/")[1]
    asked.set()


def test_unknown_names_and_closed_ports_fail(serve: Callable[..., Server]) -> None:
    assert refusal(fetcher(Names()), "http://nowhere.test/")[0] == "url_unreachable"
    assert refusal(fetcher(Names(empty_test=[[]])), "http://empty.test/")[0] == "url_unreachable"
    listening, nobody = serve(OK).port, "127.0.0.8"
    fetching = fetcher(Names(a_test=[[nobody]]), listening, may_connect=lambda address: str(address) == nobody)
    assert refusal(fetching, f"http://a.test:{listening}/")[0] == "url_unreachable"


def test_next_address_is_tried_where_the_first_is_away(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    away = "127.0.0.8"  # nothing listens there
    fetching = fetcher(
        Names(a_test=[[away, OURS]]), server.port, may_connect=lambda address: str(address) in (away, OURS)
    )
    assert fetch(fetching, f"http://a.test:{server.port}/") == PICTURE


def test_tls_speaks_of_the_name_and_checks_it(serve: Callable[..., Server]) -> None:
    authority = trustme.CA()
    tls, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("secure.test").configure_cert(tls)
    authority.configure_trust(trusting)
    names: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    server = serve(OK, tls=tls)
    known = Names(secure_test=[[OURS]], other_test=[[OURS]])
    fetching = fetcher(known, server.port, ssl_context=trusting)
    assert fetch(fetching, f"https://secure.test:{server.port}/") == PICTURE
    assert names == ["secure.test"]
    assert b"\r\nHost: secure.test:%d\r\n" % server.port in server.requests[0]
    code, message = refusal(fetching, f"https://other.test:{server.port}/")
    assert (code, "certificate" in message.lower()) == ("url_unreachable", True)
    assert refusal(fetcher(known, server.port), f"https://secure.test:{server.port}/")[0] == "url_unreachable"


def test_proxies_of_the_environment_are_not_used(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(OK, address="127.0.0.1"), serve(OK)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert fetch(fetcher(Names(a_test=[[OURS]]), server.port), f"http://a.test:{server.port}/") == PICTURE
    assert proxy.connections == 0
