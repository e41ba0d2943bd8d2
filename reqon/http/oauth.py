"""OAuth 2: tokens obtained, refreshed once for all, on disk before they are used (spec/runtime.md 3.3, 3.4)."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlencode

from reqon.clock import Clock, parse_rfc3339, rfc3339
from reqon.errors import USERS_FAULTS, AuthenticationError, ConfigurationError, ReqonError, StateError
from reqon.events import TOKENS_NOT_KEPT
from reqon.files import DISK, Lock, failpoint
from reqon.http.addresses import host_of, is_loopback_host, origin_of
from reqon.http.auth import Credentials
from reqon.http.tokens import Told, token_in
from reqon.http.transport import RawAnswer, Transport, TransportError
from reqon.secrets import SECRETS
from reqon.values import JsonError, Record, Value, decode, encode

OnRefresh = Callable[[str, Record], Awaitable[None]]

_TIMEOUT_SECONDS = 15.0
_ANSWER_LIMIT = 1024 * 1024
_TRIES = 3
_LONGEST_TOKEN = 16 * 1024
_BUFFER_SECONDS = 300.0
_LOCK_SECONDS = 60.0
_LOCK_STEP_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """What a token endpoint gave, or the configuration."""

    access: str | None = None
    refresh: str | None = None
    expires_at: datetime | None = None
    obtained_at: datetime | None = None


class TokenFile:
    """`<state>/tokens.json`: rotated tokens by the fingerprint of the configured credentials. Blocking; quick."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tokens.json"
        self.lock_path = directory / "tokens.lock"

    def read(self, fingerprint: str) -> TokenSet | None:
        """The entry of this credential; None without one.

        Raises:
            ReqonError, OSError: the file is there but cannot be used.
        """
        entry = self._entries().get(fingerprint)
        if entry is None:
            return None
        SECRETS.add(*(v for v in (entry.get("accessToken"), entry.get("refreshToken")) if isinstance(v, str)))
        return TokenSet(
            access=entry.get("accessToken"),
            refresh=entry.get("refreshToken"),
            expires_at=moment(entry.get("expiresAt")),
            obtained_at=moment(entry.get("obtainedAt")),
        )

    def write(self, fingerprint: str, source: str, tokens: TokenSet) -> None:
        """Replace this credential's entry; others stay. The lock is held by the caller. Durable on return."""
        entry = {
            "source": source,
            "accessToken": tokens.access,
            "refreshToken": tokens.refresh,
            "expiresAt": rfc3339(tokens.expires_at) if tokens.expires_at else None,
            "obtainedAt": rfc3339(tokens.obtained_at) if tokens.obtained_at else None,
        }
        entries = {**self._entries(), fingerprint: {k: v for k, v in entry.items() if v is not None}}
        DISK.replace(self.path, encode({"version": 1, "tokens": entries}, pretty=True) + b"\n", "tokens")

    def _entries(self) -> Record:
        try:
            content = decode(DISK.read(self.path))
        except FileNotFoundError:
            return {}
        if isinstance(content, dict) and content.get("version", 1) != 1:
            raise StateError("a newer Reqon wrote it", hint="use that version, or a newer one")
        entries = content.get("tokens") if isinstance(content, dict) else None
        # Taken for empty, it would be written over, and with it the only copy of tokens that were rotated.
        if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
            raise StateError("it does not hold tokens by credential", hint="mend it, or sign in again and remove it")
        return entries


def _is_entry(entry: Value) -> bool:
    known = ("accessToken", "refreshToken", "expiresAt", "obtainedAt")
    return isinstance(entry, dict) and all(isinstance(entry.get(key, ""), str) for key in known)


class OAuthTokens:
    """One OAuth credential's tokens, shared by every source and mission that is configured with it."""

    def __init__(
        self,
        source: str,
        credentials: Credentials,
        *,
        open_transport: Callable[[], Transport],
        clock: Clock,
        file: TokenFile | None,
        on_refresh: OnRefresh | None,
    ) -> None:
        self.generation = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self._source = source
        self._fields = credentials.fields
        self._fingerprint = credentials.fingerprint
        self._open_transport = open_transport
        self._clock = clock
        self._file = file
        self._lock = Lock(file.lock_path) if file is not None else None
        self._on_refresh = on_refresh
        self._tokens = TokenSet()
        self._fresh_until = float("-inf")
        self._older: tuple[str | None, ...] = ()
        self._denied: str | None = None
        self._flight: asyncio.Task[AuthenticationError | None] | None = None
        self._check()
        self._start()

    @cached_property
    def _transport(self) -> Transport:
        return self._open_transport()

    # --- what requests ask ---

    @property
    def is_fresh(self) -> bool:
        return self._clock.monotonic() < self._fresh_until

    async def obtain(self, told: Told) -> None:
        await self._share("expiry" if self._tokens.access else "initial", self.generation, told)

    async def renew(self, refused: int, told: Told) -> bool:
        if self.generation > refused:
            return True
        if self._grant() is None:
            return False
        await self._share("401", refused, told)
        return True

    def adopt(self, value: Value) -> bool:
        access = token_in(value)
        if access is None:
            return False
        refresh = value.get("refresh_token") or value.get("refreshToken")
        expires = _seconds(value.get("expires_in"))
        now = self._clock.now()
        until = now + timedelta(seconds=expires) if expires is not None else moment(value.get("expiresAt"))
        SECRETS.add(access, refresh if isinstance(refresh, str) else None)
        tokens = TokenSet(
            access=access,
            refresh=refresh if isinstance(refresh, str) and refresh else self._tokens.refresh,
            expires_at=until,
            obtained_at=now,
        )
        if self._file is not None and self._lock is not None and not self._lock.held and self._lock.take():
            try:
                # Best effort: the token works now, and a restart that lacks it meets the 401 that brought it.
                with suppress(OSError, ReqonError):
                    self._file.write(self._fingerprint, self._source, tokens)
            finally:
                self._lock.release()
        self._use(tokens)
        return True

    def forgive(self) -> None:
        """A new run begins: ask again, although the endpoint said no to the last one."""
        self._denied = None

    async def close(self, within_seconds: float = 1.0) -> None:
        """Let a token request that is under way end, for a rotated token that nobody keeps is lost."""
        if self._flight is not None and not self._flight.done():
            await asyncio.wait([self._flight], timeout=within_seconds)
            self._flight.cancel()

    # --- one request for all ---

    async def _share(self, reason: str, known: int, told: Told) -> None:
        if self._denied is not None:
            raise self._failed(self._denied)
        if self._flight is None or self._flight.done():
            # A task of its own: a mission that is cancelled must not drop the answer that holds the only new token.
            self._flight = asyncio.get_running_loop().create_task(self._fly(reason, known, told))
        error = await asyncio.shield(self._flight)
        if error is not None:
            again = AuthenticationError(error.message, kind="auth", hint=error.hint)
            again.oauth_error = error.oauth_error
            raise again

    async def _fly(self, reason: str, known: int, told: Told) -> AuthenticationError | None:
        try:
            async with self._between_processes():
                if self._generation_on_disk(known):
                    return None
                tokens = await self._request()
                failpoint("token-received")
                unkept = await self._keep(tokens)
                self._use(tokens)
                told(reason, unkept, tokens.expires_at)
                return None
        except AuthenticationError as error:
            if error.oauth_error == "invalid_grant":
                self._denied = error.oauth_error
            told(reason, error.message, None)
            return error
        except (ReqonError, OSError) as problem:
            broken = self._failed(None, f"its stored tokens cannot be used: {problem}")
            told(reason, broken.message, None)
            return broken

    @asynccontextmanager
    async def _between_processes(self) -> AsyncIterator[None]:
        lock = self._lock
        if lock is None:
            yield
            return
        deadline = self._clock.monotonic() + _LOCK_SECONDS
        while not lock.take():
            if self._clock.monotonic() >= deadline:
                raise self._failed(None, f"{lock.path} is held by another process")
            await self._clock.sleep(_LOCK_STEP_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def _generation_on_disk(self, known: int) -> bool:
        """Whether another process has stored newer tokens meanwhile; they are in use then."""
        if self._file is None or known != self.generation:
            return known != self.generation
        stored = self._file.read(self._fingerprint)
        if stored is None or stored.access in (None, self._tokens.access):
            return False
        newer = stored.obtained_at and (not self._tokens.obtained_at or stored.obtained_at > self._tokens.obtained_at)
        if not newer:
            return False
        self._use(stored)
        return self.is_fresh

    async def _keep(self, tokens: TokenSet) -> str | None:
        """Tell and write the new tokens before anybody uses them; what went wrong."""
        problem = None
        if self._file is not None:
            try:
                # Not in a thread: nothing may come between the answer and the disk.
                self._file.write(self._fingerprint, self._source, tokens)
            except (OSError, ReqonError) as error:
                problem = f"{TOKENS_NOT_KEPT}, a restart would find used ones: {error}"
        if self._on_refresh is not None:
            shown = {"accessToken": tokens.access, "refreshToken": tokens.refresh}
            if tokens.expires_at:
                shown["expiresAt"] = rfc3339(tokens.expires_at)
            try:
                await self._on_refresh(self._source, {k: v for k, v in shown.items() if v is not None})
            except (*USERS_FAULTS, ReqonError) as error:
                # Theirs to keep as well as ours: the tokens work now, and whoever watches hears of it.
                problem = f"{TOKENS_NOT_KEPT} by on_token_refresh: {type(error).__name__}: {error}"
        return problem

    # --- the token endpoint ---

    async def _request(self) -> TokenSet:
        grant = self._grant()
        assert grant is not None
        headers, form = self._form(grant)
        url = str(self._fields["tokenUrl"])
        route = self._transport.route(origin_of(url), trusted=True, connect_timeout_seconds=_TIMEOUT_SECONDS)
        pause = 1.0
        for attempt in range(1, _TRIES + 1):
            sent_at = self._clock.now()
            problem = ""
            try:
                answer = await self._transport.exchange(
                    route, "POST", url, headers, form, timeout_seconds=_TIMEOUT_SECONDS, limit=_ANSWER_LIMIT
                )
            except TransportError as failure:
                problem = failure.message
                if not failure.retryable:
                    raise self._failed(None, problem) from failure
            else:
                if answer.status < 500 and answer.status != 429:
                    return self._granted(answer, sent_at)
                problem = f"HTTP {answer.status}"
            if attempt < _TRIES:
                await self._clock.sleep(pause)
                pause *= 2
        raise self._failed(None, f"{problem}, {_TRIES} times")

    def _grant(self) -> str | None:
        """How a token can be had: refresh_token, client_credentials or what the credentials force; None: not at all."""
        fields = self._fields
        if not fields.get("tokenUrl"):
            return None
        if forced := fields.get("grantType"):
            return str(forced)
        if self._tokens.refresh:
            return "refresh_token"
        return "client_credentials" if fields.get("clientId") and fields.get("clientSecret") else None

    def _form(self, grant: str) -> tuple[Mapping[str, str], bytes]:
        fields = self._fields
        form = {"grant_type": grant}
        headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
        if grant == "refresh_token" and self._tokens.refresh:
            form["refresh_token"] = self._tokens.refresh
        scopes = fields.get("scopes")
        if scopes and grant != "refresh_token":
            form["scope"] = scopes if isinstance(scopes, str) else " ".join(map(str, scopes))
        client, secret = fields.get("clientId"), fields.get("clientSecret")
        if fields.get("clientAuth") == "basic" and client:
            # RFC 6749 section 2.3.1 form-encodes both before they are joined.
            pair = b64encode(f"{quote(str(client), safe='')}:{quote(str(secret or ''), safe='')}".encode()).decode()
            SECRETS.add(pair)
            headers.append(("Authorization", f"Basic {pair}"))
        else:
            form |= {k: str(v) for k, v in (("client_id", client), ("client_secret", secret)) if v}
        form |= {str(k): str(v) for k, v in (fields.get("tokenParams") or {}).items() if v is not None}
        return self._transport.headers(tuple(headers)), urlencode(form).encode("ascii")

    def _granted(self, answer: RawAnswer, sent_at: datetime) -> TokenSet:
        try:
            body = decode(answer.body)
        except JsonError:
            body = None
        body = body if isinstance(body, dict) else {}
        access, refresh = body.get("access_token"), body.get("refresh_token")
        for name, token in (("access_token", access), ("refresh_token", refresh)):
            if isinstance(token, str) and len(token) > _LONGEST_TOKEN:
                # No header takes it, and all that is shown would be searched for it.
                why = f"the {name} of the token endpoint has {len(token)} characters, the limit is {_LONGEST_TOKEN}"
                raise self._failed(None, why)
        SECRETS.add(*(v for v in (access, refresh) if isinstance(v, str)))
        if not 200 <= answer.status < 300:
            code = body.get("error")
            named = code if isinstance(code, str) and code.isascii() and code.isprintable() else None
            if 300 <= answer.status < 400:
                raise self._failed(None, "the token endpoint redirects; tokenUrl must be its final address")
            raise self._failed(SECRETS.excerpt(named, 100) if named else None, f"HTTP {answer.status}")
        if not isinstance(access, str) or not access:
            raise self._failed(None, "the token endpoint's answer holds no access_token")
        if str(body.get("token_type") or "bearer").lower() != "bearer":
            raise self._failed(None, "the token endpoint gave a token that is no Bearer token")
        expires = _seconds(body.get("expires_in"))
        return TokenSet(
            access=access,
            refresh=refresh if isinstance(refresh, str) and refresh else self._tokens.refresh,
            expires_at=sent_at + timedelta(seconds=expires) if expires is not None else None,
            obtained_at=sent_at,
        )

    def _failed(self, code: str | None, why: str = "") -> AuthenticationError:
        text = f"no access token for source '{self._source}'"
        detail = " ".join(filter(None, (code, f"({why})" if code and why else why)))
        hint = "check clientId, clientSecret and tokenUrl of its credentials"
        if code == "invalid_grant":
            hint = "the refresh token is used up or revoked: authorise again and replace it in the credentials"
        error = AuthenticationError(f"{text}: {detail}", kind="auth", source=self._source, hint=hint)
        error.oauth_error = code
        return error

    # --- what is in use ---

    def _check(self) -> None:
        fields = self._fields
        url = fields.get("tokenUrl")
        if url:
            try:
                origin = origin_of(str(url).partition("?")[0])
            except ValueError as error:
                raise ConfigurationError(f"source '{self._source}': tokenUrl cannot be used: {error}") from None
            if origin.startswith("http:") and not is_loopback_host(host_of(origin)):
                raise ConfigurationError(
                    f"source '{self._source}': tokenUrl must be https", hint="tokens and secrets would go unencrypted"
                )
        elif not fields.get("accessToken"):
            raise ConfigurationError(
                f"source '{self._source}': oauth2 credentials need a tokenUrl or an accessToken",
                hint='add "tokenUrl" and "clientId", "clientSecret" or "refreshToken" to its record',
            )

    def _start(self) -> None:
        fields = self._fields
        tokens = TokenSet(
            access=fields.get("accessToken"),
            refresh=fields.get("refreshToken"),
            expires_at=moment(fields.get("expiresAt")),
        )
        if self._file is not None:
            try:
                tokens = self._file.read(self._fingerprint) or tokens
            except (OSError, ReqonError) as error:
                raise ConfigurationError(f"{self._file.path} cannot be used: {error}") from error
        self._use(tokens)
        if tokens.access is None and self._grant() is None:
            raise ConfigurationError(
                f"source '{self._source}': these oauth2 credentials can get no token",
                hint='they need an "accessToken", a "refreshToken", or "clientId" and "clientSecret"',
            )

    def _use(self, tokens: TokenSet) -> None:
        previous, self._tokens = self._tokens, tokens
        # The one before may still be in flight and in messages; what came before that is of no use to anybody.
        SECRETS.forget(*(t for t in self._older if t not in (tokens.access, tokens.refresh)))
        configured = (self._fields.get("accessToken"), self._fields.get("refreshToken"))
        self._older = tuple(
            t for t in (previous.access, previous.refresh) if t not in (*configured, tokens.access, tokens.refresh)
        )
        self.headers = (("Authorization", f"Bearer {tokens.access}"),) if tokens.access else ()
        self.generation += 1
        self._fresh_until = self._until(tokens)

    def _until(self, tokens: TokenSet) -> float:
        """Up to which monotonic moment the token counts as fresh."""
        if tokens.access is None:
            return float("-inf")
        if tokens.expires_at is None or self._grant() is None:
            return float("inf")
        buffer = _seconds(self._fields.get("refreshBuffer"))
        buffer = _BUFFER_SECONDS if buffer is None else buffer
        if tokens.obtained_at is not None:
            buffer = min(buffer, (tokens.expires_at - tokens.obtained_at).total_seconds() / 2)
        left = (tokens.expires_at - self._clock.now()).total_seconds()
        return self._clock.monotonic() + left - buffer


def moment(value: Value) -> datetime | None:
    """An instant written as RFC 3339, or as seconds or milliseconds since 1970; None if it is none of them."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        try:
            return parse_rfc3339(str(value))
        except ValueError:
            return None
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) > 1e11 else number, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _seconds(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < 1e10 else None
