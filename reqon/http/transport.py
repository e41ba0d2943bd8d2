"""What carries a request to a server and its answer back: a protocol, so that any HTTP library can stand behind it."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from reqon.errors import USERS_FAULTS, ExtensionError


class TransportError(Exception):
    """No usable answer. `kind` is network, timeout, too_large, parse, unsupported_content or origin_blocked.

    `sent` is False when the connection was never established, so that the server cannot have seen the request.
    `retryable` is False when the same request would fail in the same way: a bad certificate, an answer too large.
    """

    def __init__(self, message: str, *, kind: str, sent: bool, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.sent = sent
        self.retryable = kind in ("network", "timeout") if retryable is None else retryable


class RawAnswer(NamedTuple):
    """An answer as it came. `headers` finds names whatever their case; `pairs` is every line in order."""

    status: int
    reason: str
    headers: Mapping[str, str]
    pairs: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Route(Protocol):
    """One origin, as a transport sees it: its connections, and whether the mission itself named it."""

    @property
    def origin(self) -> str: ...


class Transport(Protocol):
    """Sends requests. One per process and event loop; closed once."""

    def route(self, origin: str, *, trusted: bool, connect_timeout_seconds: float) -> Route:
        """How to reach an origin. `trusted`: named by the mission, so private addresses are open to it."""

    def headers(self, pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
        """Request headers in the form that `exchange` sends fastest; finds names whatever their case."""

    async def exchange(
        self,
        route: Any,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_seconds: float,
        limit: int,
    ) -> RawAnswer:
        """One request and its answer, content decoded; follows no redirect. The wait for a free connection is extra.

        Raises:
            TransportError: there is no usable answer within `timeout_seconds`, or it has more than `limit` bytes.
        """

    async def close(self) -> None: ...


# Status, headers and body that a function answers a request with: method, URL, headers, body.
Answered = tuple[int, Mapping[str, str], bytes]
Answering = Callable[[str, str, Mapping[str, str], bytes | None], Answered | Awaitable[Answered]]


class _FoundHeaders(dict[str, str]):
    """Headers whose names are found whatever their case, as written otherwise."""

    def get(self, name: str, default: Any = None) -> Any:
        wanted = name.lower()
        return next((value for known, value in self.items() if known.lower() == wanted), default)


class _FunctionRoute(NamedTuple):
    origin: str


class FunctionTransport:
    """A function as the transport, for tests: no socket is opened. It may be a coroutine function.

    Raising a `TransportError` in it is a failure of the network.
    """

    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    def route(self, origin: str, *, trusted: bool, connect_timeout_seconds: float) -> Route:  # noqa: ARG002  # the protocol's
        """All origins are the function's, whether the mission named them or not."""
        return _FunctionRoute(origin)

    def headers(self, pairs: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
        """A mapping that finds names whatever their case."""
        return _FoundHeaders(pairs)

    async def exchange(
        self,
        route: Any,  # noqa: ARG002  # the protocol's
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_seconds: float,  # noqa: ARG002  # the protocol's
        limit: int,
    ) -> RawAnswer:
        """What the function answers to one request.

        Raises:
            TransportError: what it raised, or the answer is larger than `limit` bytes.
            ExtensionError: it gave something else, or raised something else.
        """
        match await self._made(method, url, headers, body):
            case (int() as status, Mapping() as given, bytes() as content):
                pass
            case other:
                raise ExtensionError(f"http_transport must give status, headers and body (bytes), not {other!r}")
        if len(content) > limit:
            raise TransportError(f"the answer has more than {limit} bytes", kind="too_large", sent=True)
        pairs = tuple((name.encode(), value.encode()) for name, value in given.items())
        return RawAnswer(status, "", _FoundHeaders(given), pairs, content)

    async def _made(self, *request: Any) -> Any:
        try:
            made: Any = self._answer(*request)
            return await made if inspect.isawaitable(made) else made
        except USERS_FAULTS as error:
            raise ExtensionError(f"http_transport failed: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Nothing is open."""
