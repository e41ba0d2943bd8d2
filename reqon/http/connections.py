"""What all missions of a process share towards the outside: connections, limits, breakers, tokens."""

from collections.abc import Callable, Mapping
from pathlib import Path

from reqon.clock import Clock
from reqon.events import Event
from reqon.http.addresses import origin_of
from reqon.http.auth import Credentials
from reqon.http.breaker import Breaker
from reqon.http.client import Client, SharedState
from reqon.http.messages import SourceSettings
from reqon.http.rate_limit import RateLimiter
from reqon.http.tokens import BearerToken, Tokens
from reqon.http.transport import Transport

Emit = Callable[[Event], None]
Wants = Callable[..., bool]


class Connections:
    """One per process and event loop. Nothing is opened before the first request."""

    def __init__(
        self,
        *,
        clock: Clock,
        environment: Mapping[str, str],
        state_directory: Path | None,
        random: Callable[[], float],
        transport: Transport | None = None,
    ) -> None:
        self._clock = clock
        self._environment = environment
        self._state_directory = state_directory
        self._random = random
        self._transport = transport
        self._shared: dict[tuple[str, str, str], SharedState] = {}
        self._tokens: dict[str, Tokens] = {}

    def client(self, settings: SourceSettings, credentials: Credentials | None, emit: Emit, wants: Wants) -> Client:
        """A source's client for one execution. Sources of equal name, origin and credential share limits and breaker."""
        return Client(
            settings,
            credentials,
            transport=self._lazy_transport(),
            shared=self._state_of(settings, credentials),
            clock=self._clock,
            random=self._random,
            emit=emit,
            wants=wants,
        )

    async def close(self) -> None:
        """Close all connections. What is in flight fails."""
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    def _lazy_transport(self) -> Transport:
        if self._transport is None:
            from reqon.http.wire import AiohttpTransport  # noqa: PLC0415  # 0.1 s that `reqon --version` need not pay

            self._transport = AiohttpTransport(self._environment)
        return self._transport

    def _state_of(self, settings: SourceSettings, credentials: Credentials | None) -> SharedState:
        fingerprint = credentials.fingerprint if credentials else ""
        key = (settings.name, origin_of(settings.base), fingerprint)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = SharedState(
                limiter=RateLimiter(settings.rate_limit),
                breaker=None,
                tokens=self._tokens_of(credentials),
                endpoints={},
                keep_limits=self._keep_limits,
            )
        shared.limiter.use(settings.rate_limit)
        if settings.breaker is None:
            shared.breaker = None
        elif shared.breaker is None:
            shared.breaker = Breaker(settings.breaker)
        else:
            shared.breaker.settings = settings.breaker
        return shared

    def _tokens_of(self, credentials: Credentials | None) -> Tokens | None:
        if credentials is None or credentials.type in ("basic", "api_key"):
            return None
        tokens = self._tokens.get(credentials.fingerprint)
        if tokens is None:
            tokens = self._tokens[credentials.fingerprint] = BearerToken(str(credentials.fields["token"]))
        return tokens

    async def _keep_limits(self) -> None:
        """Write down what holds requests back, for the next process."""
