"""The HTTP side of the webhook server, on aiohttp: limits of connections, heads and bodies (spec/runtime.md 12.3).

Loaded when a server starts. aiohttp parses; what it does not limit is limited here: how many connections, how long
a head may take, how much of a body is read and for how long.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from reqon.clock import Clock, rfc3339
from reqon.events import WebhookRejected
from reqon.values import Record, encode
from reqon.webhooks.calls import NOT_ALLOWED, TOO_LARGE, TOO_SLOW, Answer, Call, canonical
from reqon.webhooks.desk import Desk, Endpoint
from reqon.webhooks.limits import Limits

BODY_LIMIT = 1024 * 1024
_LINGER_SECONDS = 1.0
_IDLE_SECONDS = 5.0  # beyond what a head may take
_HEALTH = ("/health", "/_health")
_METHODS = ("POST", "PUT", "PATCH")
_LONGEST_SHOWN = 200
_BUSY = Answer(503, {"error": "Too many connections"}, "too many connections are open", 5)

log = logging.getLogger("reqon")
# What aiohttp would say of malformed requests: anybody can send those, and each is told as an event.
_quiet = logging.getLogger("reqon.webhooks.http")
_quiet.disabled = True

Tell = Callable[[WebhookRejected, Endpoint | None], None]


class Listener:
    """Serves one bound socket until it is closed."""

    def __init__(self, desk: Desk, clock: Clock, tell: Tell, limits: Limits) -> None:
        self.limits = limits
        self._desk = desk
        self._clock = clock
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._turned_away: set[TurnedAway] = set()
        self._manager = web.Server(self._answered, loop=self._loop)
        self._server: asyncio.Server | None = None

    async def start(self, bound: socket.socket) -> None:
        self._server = await self._loop.create_server(self._connected, sock=bound)

    async def close(self) -> None:
        """Take no more calls; those that are being answered get a second."""
        if self._server is not None:
            self._server.close()
            for away in tuple(self._turned_away):
                away.leave()
            for connection in tuple(self._open):
                connection.disarm()
            await self._manager.shutdown(_LINGER_SECONDS)

    def _connected(self) -> asyncio.BaseProtocol:
        if len(self._open) >= self.limits.connections:
            return TurnedAway(self)
        return Connection(self, self._manager)

    def opened(self, connection: "Connection") -> None:
        self._open.add(connection)

    def closed(self, connection: "Connection") -> None:
        self._open.discard(connection)

    # --- those that are turned away -----------------------------------------------------------------------------------

    def turn_away(self, away: "TurnedAway") -> bool:
        """Whether there is room even for telling it why."""
        self.reject(_BUSY, "")
        if len(self._turned_away) >= self.limits.connections:
            return False
        self._turned_away.add(away)
        return True

    def left(self, away: "TurnedAway") -> None:
        self._turned_away.discard(away)

    # --- requests -----------------------------------------------------------------------------------------------------

    def reject(self, answer: Answer, path: str, endpoint: Endpoint | None = None) -> None:
        shown = path[:_LONGEST_SHOWN]
        self._tell(WebhookRejected(path=shown, status=answer.status, reason=answer.reason), endpoint)

    async def _answered(self, request: BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        try:
            return await self._answer(request)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # one of the four walls: one request's fault ends that request
            log.exception("a webhook call failed")
            return response(500, {"error": "Internal error"})
        finally:
            connection.end()

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path in _HEALTH and request.method in ("GET", "HEAD"):
            return response(200, {"status": "ok", "timestamp": rfc3339(self._clock.now())})
        answer, endpoint = await self._decide(request, path)
        if answer.refuses:
            self.reject(answer, path, endpoint)
        made = response(answer.status, answer.body, answer)
        if answer.status in (TOO_LARGE.status, TOO_SLOW.status):
            made.force_close()
        return made

    async def _decide(self, request: BaseRequest, path: str) -> tuple[Answer, Endpoint | None]:
        if request.method not in _METHODS:
            return NOT_ALLOWED, None
        try:
            pairs = parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            return Answer(400, {"error": "Bad request"}, f"the query cannot be read: {error}"), None
        call = Call(
            method=request.method,
            path=canonical(path),
            query=dict(reversed(pairs)),
            headers=_headers(request),
            received_at=self._clock.now(),
        )
        admitted = self._desk.admit(call)
        if isinstance(admitted, Answer):
            return admitted, None
        body = await _body(request, self.limits.body_seconds)
        if isinstance(body, Answer):
            return body, admitted[0]
        return await self._desk.receive(admitted, call.with_body(body))


def _headers(request: BaseRequest) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


async def _body(request: BaseRequest, within_seconds: float) -> bytes | Answer:
    """The body as it was sent, never more than the limit."""
    if (request.content_length or 0) > BODY_LIMIT:
        return TOO_LARGE
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    pieces = bytearray()
    try:
        async with asyncio.timeout(within_seconds):
            async for piece in request.content.iter_any():
                pieces += piece
                if len(pieces) > BODY_LIMIT:
                    return TOO_LARGE
    except TimeoutError:
        return TOO_SLOW
    except web.RequestPayloadError as error:
        return Answer(400, {"error": "Bad request"}, f"the body is cut: {error}")
    return bytes(pieces)


def response(status: int, body: Record, answer: Answer | None = None) -> web.Response:
    headers = {"Server": "reqon", "Cache-Control": "no-store"}
    if answer is not None and answer.retry_after_seconds is not None:
        headers["Retry-After"] = str(answer.retry_after_seconds)
    if status == NOT_ALLOWED.status:
        headers["Allow"] = ", ".join(_METHODS)
    return web.Response(status=status, body=encode(body), content_type="application/json", headers=headers)


def _raw(answer: Answer) -> bytes:
    """An answer for a connection that has no request to answer."""
    body = encode(answer.body)
    words = {408: "Request Timeout", 503: "Service Unavailable"}
    retry = f"Retry-After: {answer.retry_after_seconds}\r\n" if answer.retry_after_seconds else ""
    head = (
        f"HTTP/1.1 {answer.status} {words[answer.status]}\r\nServer: reqon\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body


class Connection(RequestHandler):
    """aiohttp's connection, with a limit on how long a head may take."""

    __slots__ = ("_answering", "_head_timer", "_listener")

    def __init__(self, listener: Listener, manager: web.Server) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=listener.limits.head_seconds + _IDLE_SECONDS,
            logger=_quiet,
            access_log=_quiet,
            lingering_time=_LINGER_SECONDS,
            auto_decompress=False,
        )
        self._listener = listener
        self._head_timer: asyncio.TimerHandle | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._listener.opened(self)
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and not self._answering and data:
            self._arm()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.disarm()
        self._listener.closed(self)
        super().connection_lost(exc)
        for message, _ in self._messages:
            _forget_frames(getattr(message, "exc", None))

    def begin(self) -> None:
        """A head is whole, its request is being answered."""
        self.disarm()
        self._answering = True

    def end(self) -> None:
        self._answering = False

    def _arm(self) -> None:
        self._head_timer = self._loop.call_later(self._listener.limits.head_seconds, self._too_slow)

    def disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport is not None and not self._answering:
            answer = Answer(408, TOO_SLOW.body, "the head did not come in time")
            self._listener.reject(answer, "")
            self.transport.write(_raw(answer))
            self.force_close()

    def handle_error(
        self,
        request: BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What aiohttp could not parse is refused as everything else is."""
        _forget_frames(exc)
        answer = Answer(status, {"error": "Bad request"}, "no HTTP request")
        self._listener.reject(answer, "")
        made = response(status, answer.body)
        made.force_close()
        return made


def _forget_frames(error: BaseException | None) -> None:
    """Break the circle of an error, the frames it came through, and the connection that keeps it.

    Or each refused connection would lie in memory until Python looks for cycles, which it seldom does (collector.py).
    """
    while error is not None:
        error.__traceback__, error = None, error.__cause__ or error.__context__


class TurnedAway(asyncio.Protocol):
    """One connection too many: told so, and closed once it had the time to read it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if not self._listener.turn_away(self):
            self._transport.abort()
            return
        self._transport.write(_raw(_BUSY))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.abort)

    def eof_received(self) -> None:
        """The client has read it, or is gone."""

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._timer.cancel()
        self._listener.left(self)

    def leave(self) -> None:
        self._transport.abort()
