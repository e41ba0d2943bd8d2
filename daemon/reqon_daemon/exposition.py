"""The thread that answers scrapes and health checks while missions compute (spec/daemon.md 4, spec/reliability.md 6).

A loop of its own on a thread of its own: a run that keeps the interpreter busy delays an answer by milliseconds, never
by its own length. It reads and shows; no route changes anything. Every limit is counted here, because this port is
taken to be reachable by anyone.
"""

import asyncio
import gzip
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

import structlog

from reqon.errors import ConfigurationError
from reqon.listening import bound_socket

log = structlog.get_logger(__name__)

REQUEST_LINE_LIMIT = 8 * 1024
HEAD_LIMIT = 16 * 1024
HEAD_SECONDS = 5.0
ANSWER_SECONDS = 10.0
IDLE_SECONDS = 75.0
CONNECTIONS = 32
_GZIP_FROM = 1024
_START_SECONDS = 10.0
_STOP_SECONDS = 1.0
_ROUNDS = 5

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What a route answers."""

    body: bytes
    content_type: str = PLAIN
    status: int = 200


# Given the request's headers, names in lower case. Called in the side thread: reads what others write, quickly.
Route = Callable[[Mapping[str, str]], Page]
Routes = Mapping[str, Route]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of one request. `close` says that the client wants, or the protocol needs, the connection to end."""

    method: str
    path: str
    headers: Mapping[str, str]
    close: bool


class RefusedError(Exception):
    """The request is answered with this status and the connection closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def parse_head(head: bytes) -> Request:
    """The request that a head asks for; `head` ends before its empty line.

    Raises:
        RefusedError: not HTTP/1, a method other than GET and HEAD, a line or header that no HTTP client sends.
    """
    first, *lines = head.split(b"\r\n")
    if len(first) > REQUEST_LINE_LIMIT:
        raise RefusedError(414, f"the request line has {len(first)} bytes, the limit is {REQUEST_LINE_LIMIT}")
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[1].startswith(b"/") or not parts[2].startswith(b"HTTP/"):
        raise RefusedError(400, "this is not an HTTP request")
    method, target, version = (part.decode("latin-1") for part in parts)
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise RefusedError(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
    if method not in ("GET", "HEAD"):
        raise RefusedError(405, "only GET and HEAD: nothing on this port changes anything")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise RefusedError(400, "a header line has no name")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    wish = headers.get("connection", "").lower()
    close = has_body or "close" in wish or (version == "HTTP/1.0" and "keep-alive" not in wish)
    return Request(method, target.partition("?")[0], headers, close)


def render(page: Page, *, close: bool, head_only: bool = False, gzipped: bool = False) -> bytes:
    """The bytes of an answer; its body compressed if asked for and worth it."""
    body = page.body
    lines = [f"HTTP/1.1 {page.status} {_REASONS[page.status]}", f"Content-Type: {page.content_type}"]
    if len(body) >= _GZIP_FROM:
        lines.append("Vary: Accept-Encoding")
        if gzipped:
            body = gzip.compress(body, compresslevel=1, mtime=0)
            lines.append("Content-Encoding: gzip")
    lines += [f"Content-Length: {len(body)}", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
    if page.status == 405:
        lines.append("Allow: GET, HEAD")
    lines.append(f"Connection: {'close' if close else 'keep-alive'}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body)


@dataclass(slots=True)
class _Desk:
    """Answers the connections of all listeners; lives in the side thread."""

    connected: set[asyncio.StreamWriter] = field(default_factory=set)
    open: set[asyncio.StreamWriter] = field(default_factory=set)  # those that count: not turned away
    waiting: dict[asyncio.StreamWriter, None] = field(default_factory=dict)  # those without a whole head, oldest first

    def accept(self, routes: Routes, talks: asyncio.TaskGroup) -> Callable[..., None]:
        """What to do with a new connection to the listener of these routes."""

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connected.add(writer)
            talks.create_task(self.serve(routes, reader, writer))

        return accepted

    async def serve(self, routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        try:
            self._admit(writer)
            await self._converse(routes, reader, writer)
        except RefusedError as refusal:
            with suppress(OSError, TimeoutError):
                await _send(writer, render(Page(f"{refusal}\n".encode(), status=refusal.status), close=True))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away, or reads too slowly: its loss alone
        except Exception:  # one of the four walls: one connection's fault must not end the others
            log.exception("a connection failed")
        finally:
            self.connected.discard(writer)
            self.open.discard(writer)
            self.waiting.pop(writer, None)
            # A client that reads nothing would keep a closing transport, and its buffer, for ever.
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    def _admit(self, writer: asyncio.StreamWriter) -> None:
        """Make room by closing whoever has waited longest without asking.

        Raises:
            RefusedError: everybody is being answered.
        """
        if len(self.open) >= CONNECTIONS:
            oldest = next(iter(self.waiting), None)
            if oldest is None:
                raise RefusedError(503, f"{CONNECTIONS} connections are being answered, the limit")
            del self.waiting[oldest]
            self.open.discard(oldest)
            oldest.transport.abort()
        self.open.add(writer)

    async def _converse(self, routes: Routes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fresh = True
        while True:
            self.waiting[writer] = None
            head = await _read_head(reader, fresh=fresh)
            # Whoever was closed to make room has a head at best, and nobody to answer.
            if head is None or writer not in self.open:
                return
            del self.waiting[writer]
            request = parse_head(head)
            await _send(writer, _answer(routes, request))
            if request.close:
                return
            fresh = False


async def _send(writer: asyncio.StreamWriter, answer: bytes) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        writer.write(answer)
        await writer.drain()


async def _read_head(reader: asyncio.StreamReader, *, fresh: bool) -> bytes | None:
    """The next head without its empty line; None when the client is done, or has nothing more to ask.

    A fresh connection has `HEAD_SECONDS` for all of it; a kept one `IDLE_SECONDS` for the first byte.

    Raises:
        RefusedError: too slow or too large.
    """
    first = b""
    try:
        async with asyncio.timeout(HEAD_SECONDS if fresh else IDLE_SECONDS) as limit:
            first = await reader.read(1)
            if not first:
                return None
            if not fresh:
                limit.reschedule(asyncio.get_running_loop().time() + HEAD_SECONDS)
            return (first + await reader.readuntil(b"\r\n\r\n"))[:-4].lstrip(b"\r\n")
    except TimeoutError:
        if not first:
            return None
        raise RefusedError(408, f"the request's head took longer than {HEAD_SECONDS:.0f} s") from None
    except asyncio.LimitOverrunError:
        raise RefusedError(431, f"the request's head is above {HEAD_LIMIT} bytes") from None


def _answer(routes: Routes, request: Request) -> bytes:
    route = routes.get(request.path)
    if route is None:
        page = Page(f"not found; there are {', '.join(routes)}\n".encode(), status=404)
    else:
        try:
            page = route(request.headers)
        except Exception:  # one of the four walls: one request's fault ends that request
            log.exception("an answer failed", path=request.path)
            page = Page(b"this answer failed; the daemon's log says why\n", status=500)
    gzipped = "gzip" in request.headers.get("accept-encoding", "")
    return render(page, close=request.close, head_only=request.method == "HEAD", gzipped=gzipped)


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to answer on. `purpose` is for people: metrics, health."""

    purpose: str
    host: str
    port: int
    routes: Routes


@dataclass(slots=True)
class Exposition:
    """The side thread. `start` binds, `stop` ends it; `ports` are the bound ones, in the order of `listens`.

    A port of 0 picks a free one. A route that raises answers 500 to its client alone.
    """

    THREAD: ClassVar[str] = "reqon-metrics"

    listens: Sequence[Listen]
    ports: tuple[int, ...] = ()
    _thread: threading.Thread | None = None
    _stop: Callable[[], object] | None = None

    def start(self) -> None:
        """Bind every address and answer from now on.

        Raises:
            ConfigurationError: a port is taken, or a host isn't one of this machine's.
        """
        sockets: list[socket.socket] = []
        try:
            sockets.extend(
                bound_socket(listen.host, listen.port, purpose=listen.purpose, host_option="--metrics-host")
                for listen in self.listens
            )
        except ConfigurationError:
            for bound in sockets:
                bound.close()
            raise
        self.ports = tuple(bound.getsockname()[1] for bound in sockets)
        ready: Future[Callable[[], object]] = Future()
        self._thread = threading.Thread(target=self._run, args=(sockets, ready), name=self.THREAD, daemon=True)
        self._thread.start()
        self._stop = ready.result(_START_SECONDS)

    def stop(self) -> None:
        """End the thread; waits at most a second for it."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join(_STOP_SECONDS)
            self._stop = self._thread = None

    def _run(self, sockets: Sequence[socket.socket], ready: Future[Callable[[], object]]) -> None:
        # Plain asyncio: where another thread has the interpreter most of the time, uvloop gains nothing.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._listen(sockets, ready))

    async def _listen(self, sockets: Sequence[socket.socket], ready: Future[Callable[[], object]]) -> None:
        desk = _Desk()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, _context: None)  # a client's fault is not ours to report
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as talks:
            servers = [
                # The reader's limit counts what follows the first byte, which is read on its own.
                await asyncio.start_server(desk.accept(listen.routes, talks), sock=bound, limit=HEAD_LIMIT - 1)
                for bound, listen in zip(sockets, self.listens, strict=True)
            ]
            ready.set_result(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()
            for _ in range(_ROUNDS):  # asyncio loses a connection that is between accept and its transport at close
                await asyncio.sleep(0)
            for server in servers:
                server.close()
            for writer in tuple(desk.connected):
                writer.transport.abort()
        for _ in range(_ROUNDS):  # an aborted transport closes its socket in the loop's next round
            await asyncio.sleep(0)
