"""Servers that mean no good: every one ends in a named error, in time, in bounded memory."""

import asyncio
import gzip
import ssl
import subprocess
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import brotli
import pytest

from reqon.clock import SYSTEM
from reqon.errors import FetchError
from reqon.http.connections import Connections
from reqon.http.messages import Request, SourceSettings
from reqon.http.retry import RetryPolicy
from tests.http.conftest import get
from tests.support.servers import Answer, ScriptedServer, reply

TIMEOUT = 1.0
LIMIT = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


def endlessly(*chunks: bytes, pause: float = 0.0) -> Callable[[Reader, Writer], Awaitable[None]]:
    """First chunk once, then the second for ever."""

    async def script(_: Reader, writer: Writer) -> None:
        writer.write(chunks[0])
        while True:
            writer.write(chunks[1])
            await writer.drain()
            await asyncio.sleep(pause)

    return script


async def silence(reader: Reader, _: Writer) -> None:
    await reader.read()


async def hang_up(_: Reader, writer: Writer) -> None:
    writer.transport.abort()


def then_silence(data: bytes) -> Callable[[Reader, Writer], Awaitable[None]]:
    async def script(reader: Reader, writer: Writer) -> None:
        writer.write(data)
        await reader.read()

    return script


def then_close(data: bytes) -> Callable[[Reader, Writer], Awaitable[None]]:
    async def script(_: Reader, writer: Writer) -> None:
        writer.write(data)
        await writer.drain()

    return script


def bomb(layers: int = 1) -> bytes:
    data = b" " * (64 * LIMIT)
    for _ in range(layers):
        data = gzip.compress(data, 9)
    return data


def bare_deflate(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b" " * size) + packer.flush()


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"3\r\n[1]\r\n0\r\n"
GZIP = b"Content-Encoding: gzip\r\n\r\n"
CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
ZOO: dict[str, tuple[Answer, set[str]]] = {
    "endless body": (endlessly(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK), {"too_large"}),
    "endless body without a length": (endlessly(HEAD + b"\r\n", b" " * 65536), {"too_large"}),
    "a huge length": (then_silence(HEAD + b"Content-Length: 99999999999999\r\n\r\n["), {"too_large"}),
    "endless header lines": (endlessly(HEAD, b"X-A: b\r\n"), {"too_large", "network"}),
    "an endless header line": (endlessly(HEAD + b"X-A: ", b"a" * 65536), {"too_large", "network"}),
    "an endless status line": (endlessly(b"HTTP/1.1 200 ", b"O" * 65536), {"too_large", "network"}),
    "headers of 100 KiB": (
        HEAD + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(100)) + b"\r\n",
        {"too_large"},
    ),
    "300 header lines": (HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(300)) + b"\r\n", {"too_large", "network"}),
    "endless 100 Continue": (endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.001), {"timeout", "network"}),
    "silence": (silence, {"timeout"}),
    "silence after the head": (then_silence(HEAD + b"Content-Length: 5\r\n\r\n"), {"timeout"}),
    "silence in the body": (then_silence(HEAD + b"Content-Length: 5\r\n\r\n[1"), {"timeout"}),
    "silence in the head": (then_silence(HEAD[:30]), {"timeout"}),
    "a byte now and then": (endlessly(HEAD + b"Content-Length: 500000\r\n\r\n", b" ", pause=0.1), {"timeout"}),
    "a header byte now and then": (endlessly(HEAD + b"X: ", b"a", pause=0.1), {"timeout"}),
    "hangs up": (hang_up, {"network"}),
    "closes at once": (then_close(b""), {"network"}),
    "no HTTP": (then_close(b"220 smtp.example ESMTP\r\n"), {"network"}),
    "binary garbage": (then_close(bytes(range(256)) * 64), {"network", "too_large"}),
    "a bad chunk": (then_close(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"), {"network"}),
    "a negative length": (then_close(HEAD + b"Content-Length: -5\r\n\r\n[1]"), {"network"}),
    "two lengths": (then_close(HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n[1] "), {"network"}),
    "length and chunks": (
        then_close(HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n[1]"),
        {"network"},
    ),
    "a gzip bomb": (reply(body=bomb(), headers={"Content-Encoding": "gzip"}), {"too_large"}),
    "a deflate bomb": (
        reply(body=zlib.compress(b" " * (64 * LIMIT), 9), headers={"Content-Encoding": "deflate"}),
        {"too_large"},
    ),
    "a bomb in chunks": (
        endlessly(
            HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n" % (len(bomb()), bomb()),
        ),
        {"too_large"},
    ),
    "two layers": (reply(body=bomb(2), headers={"Content-Encoding": "gzip, gzip"}), {"unsupported_content"}),
    "two layers in two lines": (
        HEAD + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        {"unsupported_content", "parse", "network"},
    ),
    "a brotli bomb": (
        reply(body=brotli.compress(b" " * (64 * LIMIT)), headers={"Content-Encoding": "br"}),
        {"too_large"},
    ),
    "no brotli": (reply(body=b"[1, 2, 3]", headers={"Content-Encoding": "br"}), {"parse", "network"}),
    "a cut brotli stream": (reply(body=brotli.compress(b"[1]")[:-1], headers={"Content-Encoding": "br"}), {"network"}),
    "brotli and more": (reply(body=brotli.compress(b"[1]") + b"x", headers={"Content-Encoding": "br"}), {"parse"}),
    "two codings": (reply(body=b"x", headers={"Content-Encoding": "br, gzip"}), {"unsupported_content"}),
    "an unknown coding": (reply(body=b"x", headers={"Content-Encoding": "zstd"}), {"unsupported_content"}),
    "a cut gzip stream": (reply(body=gzip.compress(b"[1]")[:-6], headers={"Content-Encoding": "gzip"}), {"network"}),
    "deep JSON": (reply(body=b"[" * 100_000 + b"]" * 100_000), {"parse"}),
    "a long number": (reply(body=b"[" + b"9" * 5000 + b"]"), {"parse"}),
    "an infinite number": (reply(body=b"[1e999999]"), {"parse"}),
    "half a character": (reply(body=b'["\\ud800"]'), {"parse"}),
    "a bare NaN": (reply(body=b"NaN"), {"parse"}),
    "an unknown charset": (reply(body=b"x", content_type="text/plain; charset=klingon"), {"parse"}),
    "a compressor as charset": (reply(body=bomb(), content_type="text/plain; charset=zlib_codec"), {"parse"}),
    "an idna charset": (reply(body=b"xn--" + b"a" * 65536, content_type="text/plain; charset=idna"), {"parse"}),
    "a punycode charset": (reply(body=b"a" * 65536 + b"-zz", content_type="text/plain; charset=punycode"), {"parse"}),
    "an undefined charset": (reply(body=b"x", content_type="text/plain; charset=undefined"), {"parse"}),
    "a charset of half characters": (
        reply(body=b"\\ud800", content_type="text/plain; charset=unicode_escape"), {"parse"}
    ),
    "half a character in UTF-7": (reply(body=b"+2AA-", content_type="text/plain; charset=utf-7"), {"parse"}),
    "a charset that is no text": (
        then_close(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=a\xff\r\nContent-Length: 1\r\n\r\nx"),
        {"parse"},
    ),
    "an endless charset": (reply(body=b"x", content_type="text/plain; charset=" + "a" * 10_000), {"parse"}),
    "an endless type": (reply(body=b"x", content_type="image/" + "a" * 10_000), {"unsupported_content"}),
    "a chunk now and then": (endlessly(HEAD + CHUNKED, b"1\r\n \r\n", pause=0.1), {"timeout"}),
    "a trailer now and then": (endlessly(HEAD + CHUNKED + LAST, b"X-A: b\r\n", pause=0.1), {"timeout"}),
    "endless trailers": (endlessly(HEAD + CHUNKED + LAST, b"X-A: b\r\n"), {"network", "too_large"}),
    "an endless trailer": (endlessly(HEAD + CHUNKED + LAST + b"X: ", b"a" * 65536), {"network", "too_large"}),
    "an endless chunk extension": (endlessly(HEAD + CHUNKED + b"1;", b"a" * 65536), {"timeout", "network"}),
    "empty gzip members": (endlessly(HEAD + GZIP, gzip.compress(b"") * 3000), {"timeout", "too_large", "parse"}),
    "empty gzip blocks": (
        endlessly(HEAD + GZIP + gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff" * 13_000), {"timeout"}
    ),
    "an endless name in gzip": (endlessly(HEAD + GZIP + b"\x1f\x8b\x08\x08\0\0\0\0\0\3", b"a" * 65536), {"timeout"}),
    "empty brotli blocks": (endlessly(HEAD + b"Content-Encoding: br\r\n\r\n\x0c", b"\6" * 65536), {"timeout"}),
    "many gzip members": (
        reply(body=gzip.compress(b" " * LIMIT, 9) * 64, headers={"Content-Encoding": "x-gzip"}), {"too_large"}
    ),
    "a bare deflate bomb": (
        reply(body=bare_deflate(64 * LIMIT), headers={"Content-Encoding": "DEFLATE"}), {"too_large"}
    ),
    "gzip and more": (
        reply(body=gzip.compress(b"[1]") + b"more", headers={"Content-Encoding": "gzip"}), {"parse", "network"}
    ),
    "deeper JSON": (reply(body=b"[" * 1_000_000), {"parse"}),
    "deeper objects": (reply(body=b'{"a":' * 200_000), {"parse"}),
    "a million digits": (reply(body=b"[" + b"9" * 1_000_000 + b"]"), {"parse"}),
    "a million decimals": (reply(body=b"[1." + b"9" * 1_000_000 + b"]"), {"parse"}),
    "a long exponent": (reply(body=b"[1e" + b"0" * 1_000_000 + b"1]"), {"parse"}),
    "half a character in a key": (reply(body=b'{"\\ud800": 1}'), {"parse"}),
    **{
        f"a length of {length!r}": (then_close(HEAD + b"Content-Length: %b\r\n\r\n[1]" % length), {"network"})
        for length in (b"3, 3", b"+3", b"0x3", b"0_3", "\u0663".encode(), b"9" * 5000, b"")
    },
    **{
        f"a chunk of {size!r}": (then_close(HEAD + CHUNKED + size + b"\r\n[1]\r\n0\r\n\r\n"), {"network"})
        for size in (b"+3", b"0x3", b"-3", b"0_3", b"", b"2", b"f" * 20)
    },
    "a switch of protocols": (
        then_silence(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        {"network", "http", "timeout"},
    ),
    "HTTP/9.9": (then_close(b"HTTP/9.9 200 OK\r\nContent-Length: 3\r\n\r\n[1]"), {"network"}),
    "status 999": (then_close(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), {"http"}),
}  # fmt: skip


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    made = Connections(clock=SYSTEM, environment={}, state_directory=None, random=lambda: 0.5)
    yield made
    await made.close()


async def too_late() -> None:
    """Ends a second after the deadline of whoever begins with it, as the same event loop sees it, however busy."""
    await asyncio.sleep(TIMEOUT + 1)
    for _ in range(1000):  # after a stall both are due in one turn of the loop; an end takes some turns more
        await asyncio.sleep(0)


async def ask(connections: Connections, base: str, request: Request | None = None) -> FetchError:
    settings = SourceSettings(
        name="Depot", base=base, timeout_seconds=TIMEOUT, max_response_bytes=LIMIT, retry=RetryPolicy(max_attempts=1)
    )
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    with pytest.raises(FetchError) as caught:
        await client.send(request or get())
    return caught.value


@pytest.mark.parametrize("name", ZOO)
async def test_a_hostile_server_ends_in_a_named_error_in_time(
    api: ScriptedServer, connections: Connections, name: str
) -> None:
    """N1"""
    answer, kinds = ZOO[name]
    api.on("/parcels", answer)
    async with asyncio.TaskGroup() as group:
        late = group.create_task(too_late())
        error = await ask(connections, api.url)
        assert not late.done(), "the deadline and a second more had passed"
        late.cancel()
    assert error.kind in kinds, error.message
    assert error.message.startswith("GET http://") and len(error.message) < 1000


@pytest.mark.parametrize("name", ZOO)
async def test_a_hostile_server_cannot_fill_the_memory(
    api: ScriptedServer, connections: Connections, name: str
) -> None:
    """N1"""
    api.on("/parcels", ZOO[name][0])
    await ask(connections, api.url)
    tracemalloc.start()
    try:
        await ask(connections, api.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * LIMIT  # with what the server, which lives in this process too, has not got rid of


def test_the_zoo_has_forty_servers_and_more() -> None:
    """N1"""
    assert len(ZOO) >= 40


LEFTOVERS = {
    "a body": reply(data=[1]),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "chunks": HEAD + CHUNKED + LAST + b"\r\n",
    "a redirect": reply(302, body=b"", headers={"Location": "/elsewhere"}),
    "an error": reply(500, data={}),
}
LATER = LEFTOVERS.keys() - {"a redirect"}  # it is followed at once


@pytest.mark.parametrize(
    ("name", "later"), [(name, False) for name in LEFTOVERS] + [(name, True) for name in sorted(LATER)]
)
async def test_what_a_server_says_unasked_answers_no_later_request(
    api: ScriptedServer, connections: Connections, name: str, later: bool
) -> None:
    """N1: more than the length said, at once or while the connection waits for its next request."""
    fake = reply(data="fake")
    said = asyncio.Event()

    async def talk(reader: Reader, writer: Writer) -> None:
        writer.write(LEFTOVERS[name] + (b"" if later else fake))
        await writer.drain()
        if later:
            await asyncio.sleep(0.02)
            writer.write(fake)
            await writer.drain()
        said.set()
        await reader.read()

    api.on("/parcels", talk)
    api.on("/elsewhere", reply(data="true"))
    settings = SourceSettings(name="Depot", base=api.url, retry=RetryPolicy(max_attempts=1))
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    with suppress(FetchError):
        assert (await client.send(get())).value in ([1], None, "true")
    await said.wait()
    await asyncio.sleep(0.02)  # it has come before what is asked next
    for _ in range(3):
        assert (await client.send(get("/elsewhere"))).value == "true"


@pytest.mark.parametrize("name", ["hangs up", "closes at once"])
async def test_a_request_whose_connection_breaks_is_sent_as_often_as_we_say(
    api: ScriptedServer, connections: Connections, name: str
) -> None:
    """R9, N1: no library sends it again behind our back, on a fresh connection or one that was used before."""
    settings = SourceSettings(name="Depot", base=api.url, retry=RetryPolicy(max_attempts=1))
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    for method in ("GET", "PUT", "DELETE"):
        api.on("/warm", reply(data=[1]))
        await client.send(get("/warm"))
        api.on("/parcels", ZOO[name][0])
        before = len(api.targets)
        with pytest.raises(FetchError) as caught:
            await client.send(get()._replace(method=method))
        assert caught.value.kind == "network" and caught.value.attempts == 1
        assert api.targets[before:] == ["/parcels"]


async def test_an_answer_cut_at_any_place_is_an_error(api: ScriptedServer, connections: Connections) -> None:
    """N1"""
    whole = HEAD + b'Content-Length: 9\r\n\r\n{"id":12}'
    for end in range(len(whole)):
        api.on("/parcels", then_close(whole[:end]))
        error = await ask(connections, api.url)
        assert error.kind == "network", (end, error.message)
    chunked = HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"id"\r\n4\r\n:12}\r\n0\r\n\r\n'
    for end in range(len(HEAD), len(chunked) - 1):
        api.on("/parcels", then_close(chunked[:end]))
        error = await ask(connections, api.url)
        assert error.kind == "network", (end, error.message)


async def test_a_source_that_hangs_does_not_hold_up_another(api: ScriptedServer, connections: Connections) -> None:
    async with ScriptedServer().on("/parcels", silence) as hung:
        api.on("/parcels", reply(data=[1]))
        settings = SourceSettings(name="Quick", base=api.url)
        quick = connections.client(settings, None, lambda _: None, lambda *_: False)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(ask(connections, hung.url, get(timeout_seconds=1.5)))
            await asyncio.sleep(0.05)
            began = SYSTEM.monotonic()
            await quick.send(get())
            assert SYSTEM.monotonic() - began < 15


async def test_the_wait_for_a_free_connection_is_not_part_of_the_timeout(
    api: ScriptedServer, connections: Connections
) -> None:
    async def slowly(_: Reader, writer: Writer) -> None:
        await asyncio.sleep(0.4)
        writer.write(reply(data=[1], headers={"Connection": "close"}))
        await writer.drain()

    api.on("/parcels", slowly)
    settings = SourceSettings(name="Depot", base=api.url, timeout_seconds=1.0)
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    async with asyncio.TaskGroup() as group:
        for _ in range(16 * 3):
            group.create_task(client.send(get(retry=RetryPolicy(max_attempts=1))))


async def test_a_short_timeout_is_kept(api: ScriptedServer, connections: Connections) -> None:
    api.on("/parcels", silence)
    began = SYSTEM.monotonic()
    error = await ask(connections, api.url, get(timeout_seconds=0.1))
    assert error.kind == "timeout" and "0.1 s" in error.message and SYSTEM.monotonic() - began < 15


async def test_cancelling_a_request_frees_its_connection_slot(api: ScriptedServer, connections: Connections) -> None:
    api.on("/parcels", silence)
    settings = SourceSettings(name="Depot", base=api.url)
    client = connections.client(settings, None, lambda _: None, lambda *_: False)
    for _ in range(3):
        tasks = [asyncio.ensure_future(client.send(get())) for _ in range(20)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks), [t for t in tasks if not t.cancelled()]
    api.on("/parcels", reply(data=[1]))
    assert (await client.send(get())).value == [1]


async def test_a_certificate_nobody_vouches_for_is_refused_once(
    connections: Connections, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """N1"""
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: Reader, writer: Writer) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        writer.write(reply(data=[1]))
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # the refused handshakes
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        base = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = SourceSettings(name="Depot", base=base)
        client = connections.client(settings, None, lambda _: None, lambda *_: False)
        with pytest.raises(FetchError) as caught:
            await client.send(get())
        assert caught.value.kind == "network" and caught.value.attempts == 1
        assert "certificate" in caught.value.message.lower()
        trusting = Connections(
            clock=SYSTEM, environment={"REQON_CA_BUNDLE": str(certificate)}, state_directory=None, random=lambda: 0.5
        )
        good = trusting.client(settings, None, lambda _: None, lambda *_: False)
        assert (await good.send(get())).value == [1]
        await trusting.close()
        plain = SourceSettings(name="Depot", base=base.replace("https", "http"), timeout_seconds=2)
        wrong = connections.client(plain, None, lambda _: None, lambda *_: False)
        with pytest.raises(FetchError) as caught:
            await wrong.send(get(retry=RetryPolicy(max_attempts=1)))
        assert caught.value.kind == "network"


@pytest.mark.parametrize(
    ("name", "days", "words"),
    [
        ("DNS:elsewhere.example", 2, "mismatch"),
        ("IP:127.0.0.2", 2, "mismatch"),
        ("IP:127.0.0.1", -1, "expired"),
        ("IP:127.0.0.1", 2, None),
    ],
)
async def test_a_trusted_certificate_must_be_of_the_host_and_of_today(
    name: str, days: int, words: str | None, tmp_path: Path
) -> None:
    """N1: its root is trusted; what it says is looked at all the same, and refused once."""
    key, asked_for, certificate = tmp_path / "key.pem", tmp_path / "asked.pem", tmp_path / "cert.pem"
    extension = tmp_path / "names.txt"
    extension.write_text(f"subjectAltName={name}\n")
    made: list[list[str | Path]] = [
        ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", asked_for],
        ["x509", "-req", "-in", asked_for, "-signkey", key, "-days", str(days), "-extfile", extension,
         "-out", certificate],
    ]  # fmt: skip
    for words_of in made:
        subprocess.run(["openssl", *words_of], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(data=[1]))
        await writer.drain()
        writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the refused handshakes
    environment = {"REQON_CA_BUNDLE": str(certificate)}
    connections = Connections(clock=SYSTEM, environment=environment, state_directory=None, random=lambda: 0.5)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        settings = SourceSettings(name="Depot", base=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        client = connections.client(settings, None, lambda _: None, lambda *_: False)
        if words is None:
            assert (await client.send(get())).value == [1]
        else:
            with pytest.raises(FetchError, match=words) as caught:
                await client.send(get())
            assert (caught.value.kind, caught.value.attempts) == ("network", 1)
    await connections.close()
