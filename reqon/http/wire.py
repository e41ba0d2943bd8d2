"""aiohttp as the transport: the only module that knows it, imported when first used, for that takes 0.1 s."""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import aiohttp
from multidict import CIMultiDict, istr
from yarl import URL

from reqon.http.addresses import host_of, is_loopback_host, refusal
from reqon.http.bounds import Deadlines, Slots
from reqon.http.coding import decoder
from reqon.http.proxies import proxy_for
from reqon.http.roots import add_roots
from reqon.http.transport import RawAnswer, TransportError

CONNECTIONS_PER_ORIGIN = 16
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADER_LINES = 200
_ROUTES = 1024
_NOT_ALLOWED = "address not allowed: "
_NOT_ALLOWED_TEXT = re.compile(re.escape(_NOT_ALLOWED) + r"[^,\]]*")
_BYTES = re.compile(r"[\s:]*(?:\n|\bb['\"])")
_LENGTH = istr("Content-Length")
_CODING = istr("Content-Encoding")


@dataclass(slots=True, eq=False)
class AiohttpRoute:
    """One origin: where its connections come from and how many may be open."""

    origin: str
    session: aiohttp.ClientSession
    timeout: aiohttp.ClientTimeout
    slots: Slots
    tls: ssl.SSLContext | bool
    proxy: str | None
    blocked: str | None = None


class _Connector(aiohttp.TCPConnector):
    """Hands out no kept connection on which the server has spoken unasked: that would answer the next request."""

    async def _get(
        self, key: "aiohttp.client_reqrep.ConnectionKey", traces: list["aiohttp.tracing.Trace"]
    ) -> aiohttp.connector.Connection | None:
        while (found := await super()._get(key, traces)) is not None:
            # There is no public way to refuse one. RFC 9112, 6.3: extra data is never a separate answer.
            if found.protocol is None or not found.protocol.should_close:
                return found
            found.close()
        return None


class AiohttpTransport:
    """Connections of this process and event loop, shared by all missions."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._slots: dict[str, Slots] = {}
        self._strict_slots = Slots(CONNECTIONS_PER_ORIGIN)
        self._routes: dict[tuple[str, bool, float], AiohttpRoute] = {}
        self._tls: ssl.SSLContext | None = None
        self._deadlines = Deadlines()

    def route(self, origin: str, *, trusted: bool, connect_timeout_seconds: float) -> AiohttpRoute:
        key = (origin, trusted, connect_timeout_seconds)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()  # origins out of data must not pile up; the next use makes them again
            route = self._routes[key] = self._make(origin, trusted=trusted, connect_timeout_seconds=key[2])
        return route

    def _make(self, origin: str, *, trusted: bool, connect_timeout_seconds: float) -> AiohttpRoute:
        proxy = proxy_for(origin, self._environment)
        blocked = None
        if proxy is not None and not trusted and (reason := _refused_by_name(host_of(origin))):
            blocked = reason  # the proxy would resolve and connect, so that only the name can be judged
        slots = self._strict_slots
        if trusted:
            slots = self._slots.setdefault(origin, Slots(CONNECTIONS_PER_ORIGIN))
        return AiohttpRoute(
            origin=origin,
            # Sessions don't share connections: a request that data has led somewhere never finds an open trusted one.
            session=self._session(trusted=trusted or proxy is not None),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_seconds),
            slots=slots,
            tls=self._tls_context() if origin.startswith("https:") else True,
            proxy=proxy,
            blocked=blocked,
        )

    def headers(self, pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
        return CIMultiDict((istr(name), value) for name, value in pairs)

    async def exchange(
        self,
        route: AiohttpRoute,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_seconds: float,
        limit: int,
    ) -> RawAnswer:
        if route.blocked is not None:
            raise _not_allowed(host_of(route.origin), route.blocked)
        slots = route.slots
        if not slots.take_now():
            await slots.take()
        try:
            async with self._deadlines.within(timeout_seconds):
                response = await route.session.request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    timeout=route.timeout,
                    ssl=route.tls,
                    proxy=route.proxy,
                )
                try:
                    _check_head(response)
                    content = b"" if method == "HEAD" else await _read(response, limit)
                except BaseException:
                    response.close()
                    raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _translated(error, timeout_seconds, route) from error
        finally:
            slots.give()
        return RawAnswer(response.status, response.reason or "", response.headers, response.raw_headers, content)

    async def close(self) -> None:
        sessions, self._sessions = list(self._sessions.values()), {}
        self._routes.clear()
        self._deadlines.close()
        for session in sessions:
            await session.close()

    def _session(self, *, trusted: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(trusted)
        if session is None:
            connector = _Connector(limit=0, socket_factory=_trusted_socket if trusted else _strict_socket)
            session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Content-Type", "User-Agent"),
                max_line_size=16 * 1024,
                max_field_size=32 * 1024,
                max_headers=MAX_HEADER_LINES,
            )
            # By itself it would send a GET again whose connection broke: unseen by retries, limits and breaker.
            session._retry_connection = False  # noqa: SLF001  # there is no public switch
            self._sessions[trusted] = session
        return session

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = ssl.create_default_context()
            add_roots(context, self._environment)
            self._tls = context
        return self._tls


def _check_head(response: aiohttp.ClientResponse) -> None:
    if sum(map(len, chain.from_iterable(response.raw_headers))) > MAX_HEADER_BYTES:
        raise TransportError(f"the answer's headers exceed {MAX_HEADER_BYTES} bytes", kind="too_large", sent=True)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    headers = response.headers
    coding = headers.get(_CODING)
    if coding is None or coding.lower() == "identity":
        length = headers.get(_LENGTH)
        if length is not None:
            if int(length) > limit:
                raise _too_large(limit)
            return await response.read()
        coding = None
    opening = decoder(coding) if coding else None
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        for piece in opening.feed(chunk) if opening else (chunk,):
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            parts.append(piece)
    if opening:
        opening.finish()
    return b"".join(parts)


def _too_large(limit: int) -> TransportError:
    return TransportError(f"the answer has more than {limit} bytes (maxResponseBytes)", kind="too_large", sent=True)


def _translated(error: Exception, timeout_seconds: float, route: AiohttpRoute) -> TransportError:
    """What a failure of aiohttp means to us."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TransportError(f"no connection within {route.timeout.connect:g} s", kind="timeout", sent=False)
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError) and error.errno is None:
        return TransportError(f"no complete answer within {timeout_seconds:g} s", kind="timeout", sent=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = str(error.certificate_error)
        return TransportError(f"TLS: {why}", kind="network", sent=False, retryable=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        if found := _NOT_ALLOWED_TEXT.search(str(error.os_error)):
            return TransportError(found[0], kind="origin_blocked", sent=False)
        host = host_of(route.origin)
        name = f"the name '{host}'"
        if route.proxy is not None:
            host = f"the proxy {URL(route.proxy).host}"
            name = f"the name of {host}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return TransportError(f"{name} cannot be resolved", kind="network", sent=False)
        where = f"{host}:{error.port}"
        if isinstance(error.os_error, ssl.SSLError):  # its number is none of the system's
            why = (error.os_error.reason or "handshake failed").lower().replace("_", " ")
            return TransportError(f"no TLS with {where}: {why}", kind="network", sent=False)
        # asyncio puts its own words where the system's reason belongs; the number still tells it.
        number = error.os_error.errno
        reason = os.strerror(number).lower() if number else str(error.os_error)
        return TransportError(f"no connection to {where}: {reason}", kind="network", sent=False)
    if isinstance(error, aiohttp.InvalidURL):
        return TransportError("the URL is not valid", kind="bad_path", sent=False)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return TransportError("the server closed the connection without an answer", kind="network", sent=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TransportError("the answer was cut off", kind="network", sent=True)
    if isinstance(error, aiohttp.ClientResponseError):
        # Behind it stand bytes as the server sent them, cut anywhere: a part of a secret could be among them.
        said = _BYTES.split(error.message.strip(), maxsplit=1)[0]
        if any(word in said.lower() for word in ("too long", "too many", "bytes in", "more than")):
            return TransportError(f"the answer's headers are too large: {said}", kind="too_large", sent=True)
        return TransportError(f"the server does not speak HTTP: {said[:200] or 'malformed'}", kind="network", sent=True)
    if isinstance(error, OSError):
        return TransportError(f"the connection broke: {error.strerror or error}", kind="network", sent=True)
    return TransportError(f"the exchange failed: {error}", kind="network", sent=True)


# --- which addresses ---


def _trusted_socket(info: "aiohttp.connector.AddrInfoType") -> socket.socket:
    return _socket(info, trusted=True)


def _strict_socket(info: "aiohttp.connector.AddrInfoType") -> socket.socket:
    return _socket(info, trusted=False)


def _socket(info: "aiohttp.connector.AddrInfoType", *, trusted: bool) -> socket.socket:
    """A socket for an address that was resolved already: what is judged here is what gets connected."""
    family, kind, protocol, _, address = info
    if reason := refusal(str(address[0]), trusted=trusted):
        raise OSError(f"{_NOT_ALLOWED}{address[0]} is {reason}")
    return socket.socket(family, kind, protocol)


def _not_allowed(host: str, reason: str) -> TransportError:
    return TransportError(f"{_NOT_ALLOWED}{host} is {reason}", kind="origin_blocked", sent=False)


def _refused_by_name(host: str) -> str | None:
    if is_loopback_host(host):
        return "a loopback address"
    try:
        return refusal(
            socket.inet_ntoa(socket.inet_aton(host)), trusted=False
        )  # every spelling: 0xa9fea9fe, 2852039166
    except OSError:
        return refusal(host, trusted=False) if ":" in host else None
