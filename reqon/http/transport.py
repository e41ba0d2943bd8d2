"""What carries a request to a server and its answer back: a protocol, so that any HTTP library can stand behind it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


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
