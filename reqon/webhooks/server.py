"""The webhook server: where it listens, what its URLs begin with, when it starts and ends (spec/runtime.md 12.1)."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from reqon.clock import SYSTEM, Clock
from reqon.errors import ConfigurationError
from reqon.events import Emitted, Event, EventBus
from reqon.http.addresses import is_loopback_host
from reqon.listening import bound_socket
from reqon.state.webhooks import Registration, Shelf
from reqon.webhooks.desk import SWEEP_SECONDS, Desk, Endpoint
from reqon.webhooks.limits import Limits
from reqon.webhooks.signatures import Signature

if TYPE_CHECKING:
    from reqon.webhooks.listener import Listener

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 3000

log = logging.getLogger("reqon")


class WebhookServer:
    """Receives calls for the executions of this process.

        async with WebhookServer(port=0) as server:
            await execute(source, webhook_server=server)

    `url` is what the URLs given to APIs begin with: the address by which they reach this machine. Without one it is
    `http://localhost:PORT`. Port 0 picks a free port. One that is not open yet is opened and closed by the run itself.
    """

    def __init__(
        self,
        *,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        url: str | None = None,
        clock: Clock = SYSTEM,
        limits: Limits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._public = _checked_url(url)
        self._clock = clock
        self._limits = limits or Limits()
        self.desk = Desk(clock)
        self.bus = EventBus()
        self._socket: socket.socket | None = None
        self._listener: Listener | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    # --- where it is --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """What the URLs that are given away begin with; no slash at its end."""
        return self._public or f"http://localhost:{self.port}"

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether only this machine can call: it listens on loopback, and its URL says so too."""
        return is_loopback_host(self.host) and is_loopback_host(urlsplit(self.url).hostname or "")

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return self._listener is not None

    # --- life ---------------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the port, so that a taken one is known before anything else is done.

        Raises:
            ConfigurationError: it cannot be had; one line that says why.
        """
        if self._socket is None:
            self._socket = bound_socket(self.host, self.port, purpose="webhook", host_option="--webhook-host")
            self.port = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Take calls from now on.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        if self._listener is not None:
            return
        self.bind()
        assert self._socket is not None
        from reqon.webhooks.listener import Listener  # noqa: PLC0415  # aiohttp costs 130 ms

        listener = Listener(self.desk, self._clock, self._refused, self._limits)
        await listener.start(self._socket)
        self._listener = listener
        self._sweep_later()

    async def close(self) -> None:
        """Take no more calls."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _sweep_later(self) -> None:
        def sweep() -> None:
            self.desk.sweep()
            self._sweep_later()

        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, sweep)

    # --- endpoints without a running execution ------------------------------------------------------------------------

    def adopt(self, registration: Registration, shelf: Shelf, environment: Mapping[str, str]) -> Endpoint:
        """Take calls for an execution that no process runs, until it is resumed."""
        signature = None if registration.signature is None else Signature.known(registration.signature, environment)
        endpoint = Endpoint(registration, shelf, self._teller(registration), signature=signature, attached=False)
        if registration.expires_at is not None:
            left = (registration.expires_at - self._clock.now()).total_seconds()
            endpoint.deadline = self._clock.monotonic() + left
        endpoint.load()
        self.desk.add(endpoint)
        return endpoint

    def leave(self, endpoint: Endpoint) -> None:
        """Its execution stopped: what still comes is kept for its resume."""
        endpoint.attached, endpoint.judged, endpoint.accepts = False, False, None
        endpoint.tell = self._teller(endpoint.registration)

    def _teller(self, registration: Registration) -> "Tell":
        return Tell(self, registration.execution_id, registration.mission, registration.action)

    def _refused(self, event: Event, endpoint: Endpoint | None) -> None:
        if endpoint is not None:
            endpoint.tell(event)
        else:
            Tell(self, "", "", None)(event)

    @property
    def clock(self) -> Clock:
        """What its times and timeouts go by."""
        return self._clock


class Tell:
    """Emits events of an execution that does not run here, or of none."""

    def __init__(self, server: WebhookServer, execution_id: str, mission: str, action: str | None) -> None:
        self._server = server
        self._execution_id, self._mission, self._action = execution_id, mission, action

    def __call__(self, event: Event) -> None:
        bus = self._server.bus
        if bus.wants(type(event)):
            now = self._server.clock.now()
            bus.emit(Emitted(event, 0, self._execution_id, self._mission, now, self._action))


def _checked_url(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        problem = None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problem = "is no http(s) URL"
        elif parts.query or parts.fragment or parts.username or parts.password:
            problem = "has a user, a query or a fragment"
    except ValueError as error:
        problem = f"is no URL: {error}"
    if problem is not None:
        raise ConfigurationError(
            f"--webhook-url: '{url}' {problem}", code="bad-option", hint="such as https://hooks.example.com/reqon"
        )
    return url.rstrip("/")
