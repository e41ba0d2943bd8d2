"""The side thread: limits of the port, and answers while the main thread computes."""

import gzip
import http.client
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from reqon.clock import SYSTEM
from reqon.errors import ConfigurationError
from reqon_daemon.exposition import CONNECTIONS, Exposition, Listen, Page, RefusedError, parse_head
from reqon_daemon.health import Health
from reqon_daemon.metrics import Metrics
from tests.support.clocks import FakeClock

SLOW = bool(os.environ.get("REQON_SLOW"))
BIG = b"0123456789abcdef\n" * 500


def _raise(_headers: object) -> Page:
    raise ValueError("planted")


ROUTES = {
    "/small": lambda _headers: Page(b"small\n"),
    "/big": lambda _headers: Page(BIG),
    "/broken": _raise,
}


@pytest.fixture
def port() -> Iterator[int]:
    exposition = Exposition((Listen("metrics", "127.0.0.1", 0, ROUTES),))
    exposition.start()
    try:
        yield exposition.ports[0]
    finally:
        exposition.stop()


def _raw(port: int, sent: bytes, *, timeout: float = 8) -> bytes:
    """All that comes back for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        client.sendall(sent)
        received = b""
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                received += part
        return received


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_get_answers_with_the_page(port: int) -> None:
    answer = _raw(port, b"GET /small?x=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 6" in head
    assert body == b"small\n"


def test_head_answers_with_the_length_and_no_body(port: int) -> None:
    answer = _raw(port, b"HEAD /big HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert f"Content-Length: {len(BIG)}".encode() in answer
    assert answer.endswith(b"\r\n\r\n")


def test_gzip_is_used_when_asked_for(port: int) -> None:
    answer = _raw(port, b"GET /big HTTP/1.1\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == BIG


def test_a_kept_connection_answers_several_requests(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for _ in range(3):
        client.request("GET", "/small")
        assert client.getresponse().read() == b"small\n"
    client.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /small HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", 405),
        (b"DELETE /small HTTP/1.1\r\n\r\n", 405),
        (b"GET /none HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /broken HTTP/1.1\r\nConnection: close\r\n\r\n", 500),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /small HTTP/1.1\r\nX: " + b"a" * 17000 + b"\r\n\r\n", 431),
        (b"GET /small HTTP/1.1\r\nX: " + b"a" * 400_000, 431),
        (b"GET /small HTTP/2.0\r\n\r\n", 505),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
        (b"GET /small HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /small HTTP/1.1\r\n : x\r\n\r\n", 400),
    ],
)
def test_what_is_not_served_is_named(port: int, sent: bytes, status: int) -> None:
    """N7 in part: one of each kind."""
    assert _status(_raw(port, sent)) == status
    assert _status(_raw(port, b"GET /small HTTP/1.0\r\n\r\n")) == 200


def test_a_head_that_drips_is_cut_after_five_seconds(port: int) -> None:
    began = SYSTEM.monotonic()
    answer = _raw(port, b"GET /small HTTP/1.1\r\nX: 1", timeout=9)
    assert _status(answer) == 408
    assert 4.5 < SYSTEM.monotonic() - began < 15


def test_more_connections_than_the_limit_never_lock_a_scraper_out(port: int) -> None:
    """N7 in part: half-open connections."""
    number = 1_000 if SLOW else CONNECTIONS * 3
    held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(number)]
    try:
        for client in held:
            with suppress(OSError):
                client.sendall(b"GET /small HT")
        for _ in range(3):
            assert _status(_raw(port, b"GET /small HTTP/1.0\r\n\r\n")) == 200
        assert threading.active_count() < 40
    finally:
        for client in held:
            client.close()


def test_random_bytes_leave_the_server_alive(port: int) -> None:
    """N7: 100,000 of them with REQON_SLOW=1."""
    numbers = random.Random(7)
    before = _kibibytes()
    for _ in range(100_000 if SLOW else 150):
        junk = numbers.randbytes(numbers.randrange(1, 300)).replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(junk)
            client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while client.recv(4096):
                    pass
    assert _status(_raw(port, b"GET /small HTTP/1.0\r\n\r\n")) == 200
    assert threading.active_count() < 40 and _kibibytes() - before < 20 * 1024


def test_a_body_of_300_megabytes_is_never_read(port: int) -> None:
    """N7: of whatever length is claimed."""
    before = _kibibytes()
    for head in (b"Content-Length: 314572800\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10000000\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client, suppress(OSError):
            client.sendall(b"POST /small HTTP/1.1\r\n" + head)
            for _ in range(300):
                client.sendall(b"z" * 0x100000)
        assert _status(_raw(port, b"GET /small HTTP/1.0\r\n\r\n")) == 200
    assert _kibibytes() - before < 20 * 1024


def _kibibytes() -> int:
    """What this process holds in memory."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_taken_port_says_so_and_what_to_do() -> None:
    """K2 in part: taken port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{number} is taken") as failure:
            Exposition((Listen("metrics", "127.0.0.1", number, ROUTES),)).start()
    assert failure.value.exit_code == 3
    assert f"--metrics-port {number + 1}," in str(failure.value.hint)


def test_the_error_about_9090_names_prometheus() -> None:
    with ExitStack() as stack:
        with suppress(OSError):  # if somebody has it already, so much the better
            stack.enter_context(socket.create_server(("127.0.0.1", 9090)))
        with pytest.raises(ConfigurationError, match="Prometheus"):
            Exposition((Listen("metrics", "127.0.0.1", 9090, ROUTES),)).start()


@pytest.mark.parametrize("host", ["256.1.1.1", "198.51.100.7", "no such host"])
def test_a_host_that_is_not_ours_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen"):
        Exposition((Listen("health", host, 0, ROUTES),)).start()


def test_two_listeners_have_their_own_pages() -> None:
    exposition = Exposition(
        (
            Listen("metrics", "127.0.0.1", 0, ROUTES),
            Listen("health", "127.0.0.1", 0, {"/other": lambda _headers: Page(b"other\n")}),
        )
    )
    exposition.start()
    try:
        first, second = exposition.ports
        assert _status(_raw(first, b"GET /other HTTP/1.0\r\n\r\n")) == 404
        assert _status(_raw(second, b"GET /other HTTP/1.0\r\n\r\n")) == 200
    finally:
        exposition.stop()


def test_stop_ends_the_thread_with_clients_connected(port: int) -> None:
    exposition = Exposition((Listen("metrics", "127.0.0.1", 0, ROUTES),))
    exposition.start()
    with socket.create_connection(("127.0.0.1", exposition.ports[0])):
        exposition.stop()
    assert sum(t.name == Exposition.THREAD for t in threading.enumerate()) == 1  # the fixture's


def test_answers_come_while_the_main_thread_computes(port: int) -> None:
    """K4 in part; benchmarks/daemon.py says how quickly."""
    answers: list[int] = []

    def scrape() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(40):
            client.request("GET", "/small")
            answer = client.getresponse()
            answer.read()
            answers.append(answer.status)
        client.close()

    thread = threading.Thread(target=scrape)
    thread.start()
    total = 0
    while thread.is_alive():  # a mission that only computes
        total += sum(i * i for i in range(2000))
    assert answers == [200] * 40
    assert total


def test_a_head_is_read_as_http_says() -> None:
    request = parse_head(b"GET /metrics?name=x HTTP/1.1\r\nAccept: a\r\nACCEPT:b\r\nConnection: Close")
    assert request.path == "/metrics"
    assert request.headers["accept"] == "a, b"
    assert request.close
    assert not parse_head(b"GET / HTTP/1.1\r\nHost: h").close
    assert parse_head(b"GET / HTTP/1.0").close
    assert parse_head(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked").close
    with pytest.raises(RefusedError):
        parse_head(b"GET  HTTP/1.1")


def test_a_wedged_scheduler_is_not_alive_while_metrics_answer() -> None:
    """K2: `/livez` 503 within 60 s while `/metrics` answers."""
    clock = FakeClock()
    health = Health(clock, lock_held=lambda: True)
    health.ticked()
    metrics = Metrics()
    routes = {"/metrics": lambda headers: Page(metrics.render(headers.get("accept", ""))[0]), **health.routes()}
    exposition = Exposition([Listen("metrics", "127.0.0.1", 0, routes)])
    exposition.start()
    try:
        (port,) = exposition.ports
        assert _status(_raw(port, b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")) == 200
        clock.advance(61)
        assert _status(_raw(port, b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")) == 503
        assert _status(_raw(port, b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")) == 200
    finally:
        exposition.stop()
