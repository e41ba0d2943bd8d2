"""What all missions of a process share towards the outside: connections, limits, breakers, tokens."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from reqon.clock import Clock
from reqon.errors import USERS_FAULTS, ConfigurationError, ReqonError
from reqon.files import DISK, locked
from reqon.http.addresses import origin_of
from reqon.http.auth import Credentials, Fields
from reqon.http.client import Client
from reqon.http.gate import Emit, SharedState, Wants
from reqon.http.limits import Limits, OwnLimits
from reqon.http.messages import BreakerSettings, RateLimitSettings, SourceSettings
from reqon.http.oauth import OAuthTokens, OnRefresh, TokenFile
from reqon.http.proxies import proxy_for
from reqon.http.rate_limit import RateLimiter
from reqon.http.roots import check_roots
from reqon.http.tokens import AuthProvider, BearerToken, ProviderTokens, Tokens
from reqon.http.transport import Transport
from reqon.values import Record, decode, encode

AuthProviders = Mapping[str, Callable[[Fields], AuthProvider]]

_KEPT_LIMITS = "rate-limits.json"

# A source's name, its origin, and the fingerprint of its credentials.
LimitsKey = tuple[str, str, str]


class LimitsElsewhere(Protocol):
    """Where another process holds limits and breakers."""

    def limits(
        self, key: LimitsKey, rate_limit: RateLimitSettings | None, breaker: BreakerSettings | None
    ) -> Limits: ...

    async def keep_limits(self) -> None: ...


class Connections:
    """One per process and event loop. Nothing is opened before the first request.

    `state_directory` is where rotated tokens and long waits are kept; None keeps them in memory only. `limits` asks
    another process for limits and breakers.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        environment: Mapping[str, str],
        state_directory: Path | None,
        random: Callable[[], float],
        transport: Transport | None = None,
        limits: LimitsElsewhere | None = None,
        on_token_refresh: OnRefresh | None = None,
        auth_providers: AuthProviders | None = None,
        set_aside: Callable[[Path, str], Path | None] | None = None,
    ) -> None:
        """`set_aside` moves a file that cannot be read, which it is told with the reason; answers its new place."""
        self._clock = clock
        self._environment = environment
        self._state_directory = state_directory
        self._random = random
        self._transport = transport
        self._on_token_refresh = on_token_refresh
        self._auth_providers = auth_providers or {}
        self._limits_elsewhere = limits
        self._limits: dict[LimitsKey, OwnLimits] = {}
        self._tokens: dict[str, Tokens] = {}
        self._token_file = TokenFile(state_directory) if state_directory is not None else None
        self._kept: Record | None = None
        self._set_aside = set_aside
        self._roots_checked = False

    def client(self, settings: SourceSettings, credentials: Credentials | None, emit: Emit, wants: Wants) -> Client:
        """A source's client for one execution. Sources of equal name, origin and credential share limits and breaker.

        Raises:
            ConfigurationError: `base` is no absolute http(s) URL without user, query and fragment; oauth2 credentials
                can get no token; the auth provider isn't registered; a proxy or certificates that a variable names
                cannot be used.
        """
        _check_base(settings)
        proxy_for(origin_of(settings.base), self._environment)
        if settings.base.startswith("https:") and not self._roots_checked:
            check_roots(self._environment)
            self._roots_checked = True
        return Client(
            settings,
            credentials,
            open_transport=self._open_transport,
            shared=self._state_of(settings, credentials),
            clock=self._clock,
            random=self._random,
            emit=emit,
            wants=wants,
        )

    def breaker_status(self, source: str) -> Record | None:
        """`{state, failures, successes, last_failure_time, next_attempt_time}` of a source's breaker; None without one.

        Times are instants.
        """
        for (name, _, _), limits in self._limits.items():
            if name == source and limits.breaker is not None:
                return limits.breaker.status(self._clock.monotonic(), self._clock.now())
        return None

    def reset_breaker(self, source: str) -> None:
        """Close a source's breaker by hand."""
        for (name, _, _), limits in self._limits.items():
            if name == source and limits.breaker is not None:
                limits.breaker.reset()

    async def close(self) -> None:
        """Close all connections, within a second or two. What is in flight fails."""
        for tokens in self._tokens.values():
            await tokens.close()
        if self._transport is not None:
            await self._transport.close()
            self._transport = None

    def _open_transport(self) -> Transport:
        if self._transport is None:
            from reqon.http.wire import AiohttpTransport  # noqa: PLC0415  # aiohttp takes 0.1 s to import

            self._transport = AiohttpTransport(self._environment)
        return self._transport

    def _state_of(self, settings: SourceSettings, credentials: Credentials | None) -> SharedState:
        key = (settings.name, origin_of(settings.base), credentials.fingerprint if credentials else "")
        tokens = self._tokens_of(settings.name, credentials)
        elsewhere = self._limits_elsewhere
        if elsewhere is None:
            return SharedState(self.limits(key, settings.rate_limit, settings.breaker), tokens, self.keep_limits)
        return SharedState(elsewhere.limits(key, settings.rate_limit, settings.breaker), tokens, elsewhere.keep_limits)

    def limits(
        self, key: LimitsKey, rate_limit: RateLimitSettings | None, breaker: BreakerSettings | None
    ) -> OwnLimits:
        """The limits and the breaker that sources of equal name, origin and credential share."""
        found = self._limits.get(key)
        if found is None:
            limiter = RateLimiter(rate_limit)
            self._recall(key[0], key[1], limiter)
            found = self._limits[key] = OwnLimits(limiter, self._clock)
        found.use(rate_limit, breaker)
        return found

    # --- tokens ---

    def _tokens_of(self, source: str, credentials: Credentials | None) -> Tokens | None:
        if credentials is None or credentials.type in ("basic", "api_key"):
            return None
        key = credentials.fingerprint
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = self._tokens[key] = self._new_tokens(source, credentials)
        tokens.forgive()
        return tokens

    def _new_tokens(self, source: str, credentials: Credentials) -> Tokens:
        if credentials.type == "bearer":
            return BearerToken(str(credentials.fields["token"]))
        if credentials.type == "oauth2":
            return OAuthTokens(
                source,
                credentials,
                open_transport=self._open_transport,
                clock=self._clock,
                file=self._token_file,
                on_refresh=self._on_token_refresh,
            )
        factory = self._auth_providers.get(credentials.type)
        if factory is None:
            known = ", ".join(sorted(("none", "bearer", "basic", "api_key", "oauth2", *self._auth_providers)))
            raise ConfigurationError(
                f"source '{source}' has auth: {credentials.type}, which nobody has registered", hint=f"known: {known}"
            )
        try:
            return ProviderTokens(source, factory(credentials.fields))
        except USERS_FAULTS as error:
            text = f"the auth provider of source '{source}' cannot be made: {type(error).__name__}: {error}"
            raise ConfigurationError(text) from error

    # --- long waits, kept for the next process: best effort ---

    def _recall(self, source: str, origin: str, limiter: RateLimiter) -> None:
        if self._state_directory is None:
            return
        if self._kept is None:
            self._kept = self._read_kept(self._state_directory) or {}
        kept = self._kept.get(source)
        if isinstance(kept, dict) and kept.get("origin") == origin:
            limiter.restore(kept, self._clock.monotonic(), self._clock.now())

    async def keep_limits(self) -> None:
        """Write down long waits for the next process."""
        if self._state_directory is not None:
            found = self._long_waits(self._clock.monotonic(), self._clock.now())
            await asyncio.to_thread(self._write_kept, self._state_directory, found)

    def write_limits(self) -> None:
        """As `keep_limits`, for whoever may block."""
        if self._state_directory is not None:
            self._write_kept(self._state_directory, self._long_waits(self._clock.monotonic(), self._clock.now()))

    def _read_kept(self, directory: Path) -> Record | None:
        """What an earlier process kept; None if the file cannot be read, and so may not be written over."""
        path = directory / _KEPT_LIMITS
        try:
            content = decode(DISK.read(path, 1024 * 1024))
        except FileNotFoundError:
            return {}
        except (OSError, ReqonError) as error:
            reason = f"cannot be used: {error.strerror if isinstance(error, OSError) else error.message}"
        else:
            if isinstance(content, dict):
                return content
            reason = "does not say how long sources wait"
        return {} if self._set_aside is not None and self._set_aside(path, reason) else None

    def _write_kept(self, directory: Path, found: Mapping[str, Record]) -> None:
        path = directory / _KEPT_LIMITS
        try:
            with locked(path.with_suffix(".lock"), wait_seconds=1):
                kept = self._read_kept(directory)
                if kept is not None:
                    content = {**kept, **found}
                    DISK.replace(path, encode({k: v for k, v in content.items() if v}, pretty=True), "rate-limits")
        except (OSError, ReqonError):
            return  # a restart then asks the API, which says it again

    def _long_waits(self, now: float, wall: datetime) -> dict[str, Record]:
        """What each of our sources should find after a restart; an empty record for those that need not wait."""
        found: dict[str, Record] = {}
        for (source, origin, _), limits in self._limits.items():
            kept = limits.limiter.keep(now, wall)
            if kept is not None:
                found[source] = {"origin": origin, **kept}
            else:
                found.setdefault(source, {})
        return found


def _check_base(settings: SourceSettings) -> None:
    try:
        origin_of(settings.base)
    except ValueError as error:
        what = f"'{settings.base}' cannot be used: {error}" if settings.base else "is empty"
        raise ConfigurationError(
            f"base of source '{settings.name}' {what}",
            hint="it must be an absolute URL such as https://api.example.org",
        ) from None
    if "?" in settings.base or "#" in settings.base:
        raise ConfigurationError(
            f"base of source '{settings.name}' must not have a query or a fragment",
            hint="put parameters into params of the requests",
        )
