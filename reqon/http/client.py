"""One source of one mission: makes requests ready, sends them, decides what follows (spec/runtime.md, A to I)."""

from base64 import b32encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256

from reqon.__about__ import __version__
from reqon.clock import Clock
from reqon.errors import FetchError, RateLimitError
from reqon.events import AuthRefreshed, FetchRetried, RequestAnswered
from reqon.http.addresses import host_of, origin_of
from reqon.http.auth import Credentials
from reqon.http.body import decode_body, encode_body
from reqon.http.coding import ACCEPTED
from reqon.http.failures import failure_reason, from_answer, from_transport
from reqon.http.gate import Emit, Gate, SharedState, Wants
from reqon.http.headers import checked, merged, pairs
from reqon.http.messages import Headers, Reply, Request, SourceSettings
from reqon.http.paths import MAX_URL, encode_query
from reqon.http.redirects import STATUSES, next_hop, refused
from reqon.http.retry import RetryPolicy, is_retryable_status, may_repeat, retry_after_seconds
from reqon.http.transport import RawAnswer, Route, Transport, TransportError
from reqon.secrets import SECRETS
from reqon.tracing import traceparent
from reqon.values import Value

_DEFAULT_RETRY = RetryPolicy()
_CONNECT_SECONDS = 10.0
_WITH_EFFECT = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_NO_CONTENT = frozenset((204, 205, 304))
_DEFAULTS = (("Accept", "application/json"), ("User-Agent", f"reqon/{__version__}"), ("Accept-Encoding", ACCEPTED))


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A request made ready: what the transport gets, and what decides about it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    route: Route
    own: bool  # to the source's origin, with its credentials and under its limits
    may_refresh: bool
    timeout: float
    generation: int  # of the token in its headers


class Client:
    """Sends one source's requests. Made by `Connections.client`; safe for many tasks at once."""

    def __init__(
        self,
        settings: SourceSettings,
        credentials: Credentials | None,
        *,
        open_transport: Callable[[], Transport],
        shared: SharedState,
        clock: Clock,
        random: Callable[[], float],
        emit: Emit,
        wants: Wants,
    ) -> None:
        self.settings = settings
        self._open_transport = open_transport
        self._gate = Gate(settings, shared, clock, emit=emit, wants=wants)
        self._clock = clock
        self._random = random
        self._emit = emit
        self._wants = wants
        self._origin = origin_of(settings.base)
        self._base = settings.base.rstrip("/")
        if credentials is not None and not credentials.may_go_to(host_of(self._origin)):
            credentials = None
        self._tokens = shared.tokens if credentials is not None else None
        self._fixed = credentials.headers if credentials is not None and self._tokens is None else ()
        self._key = credentials.parameter if credentials is not None else None
        self._dynamic = settings.propagate_trace or any(callable(value) for _, value in settings.headers)
        self._route: Route | None = None
        # The headers of most requests are the same until a token changes, so they are made once.
        self._ready: Mapping[str, str] | None = None
        self._ready_for = 0

    @cached_property
    def _transport(self) -> Transport:
        return self._open_transport()

    async def send(self, request: Request, *, single: bool = False) -> Reply:
        """Send, with retries, refreshes and waits, until there is an answer or no hope. `single`: no automatic retries.

        Raises:
            FetchError: the failure that remains, with the answer's body and headers where there was one.
        """
        policy = request.retry or self.settings.retry or _DEFAULT_RETRY
        last = 1 if single else policy.max_attempts
        gate = self._gate
        own = request.target[:1] == "/" or self._is_own(request.target)
        attempt, refreshed = 1, False
        sent_at: datetime | None = None
        out: _Outgoing | None = None
        while True:
            outcome: RawAnswer | TransportError
            ticket = 0
            try:
                admission = gate.admit() if own else 0
            except FetchError as error:
                raise self._about(error, request, out, attempt - 1) from None
            try:
                out = await self._prepare(request)
                if own:
                    ticket = gate.permit_now(request) or await gate.permit(request)
                started = self._clock.monotonic()
                if sent_at is None:
                    sent_at = self._clock.now()
                try:
                    outcome = await self._exchange(request, out, started)
                except TransportError as broken:
                    outcome = broken
            except FetchError as error:
                if own:
                    gate.undecided(admission)
                raise self._about(error, request, out, attempt) from error.__cause__
            except BaseException:
                if own:
                    gate.undecided(admission)
                raise
            retry_after = None
            if isinstance(outcome, RawAnswer):
                status = outcome.status
                if status >= 400:
                    retry_after = retry_after_seconds(outcome.headers, self._clock.now())
                answer: Reply | FetchError | None = None
                if 200 <= status < 300 or status == 304:
                    try:
                        answer = self._reply(request, out, outcome, attempt, sent_at)
                    except FetchError as unreadable:
                        answer = unreadable
                if out.own:
                    gate.learn(ticket, outcome, retry_after)
                    if isinstance(answer, FetchError):
                        gate.undecided(admission)
                    else:
                        gate.judge(admission, status=status)
                    if retry_after is not None and status in (429, 503):
                        await gate.keep(retry_after)
                elif own:
                    gate.undecided(admission)  # a redirect has led elsewhere
                if self._wants(RequestAnswered):
                    self._tell_of_answer(request, str(status), started)
                if isinstance(answer, FetchError):
                    raise answer
                if answer is not None:
                    return answer
                if status == 401 and out.may_refresh and not refreshed and await self._renew(request, out, attempt):
                    refreshed = True
                    continue
            else:
                if own:
                    gate.judge(admission, kind=outcome.kind)
                if self._wants(RequestAnswered):
                    self._tell_of_answer(request, outcome.kind, started)
            failed = self._failed(request, out, outcome, attempt, retry_after)
            if attempt >= last or not self._goes_again(request, out, failed, outcome, attempt):
                raise failed from (outcome if isinstance(outcome, TransportError) else None)
            if own and (open_by_now := gate.opened()) is not None:
                raise self._about(open_by_now, request, out, attempt) from failed
            await self._wait_to_retry(request, policy, failed, attempt, last)
            attempt += 1

    @property
    def adds(self) -> frozenset[str]:
        """The headers that every request gets from the source, in lower case, and a key's parameter as it is."""
        names = [name.lower() for name, _ in (*self.settings.headers, *self._fixed)]
        if self._key is not None:
            names.append(self._key[0])
        return frozenset(names)

    def adopt(self, value: Value) -> bool:
        """Take a token out of another action's response (spec/runtime.md 3.5); whether there was one."""
        return self._tokens is not None and self._tokens.adopt(value)

    # --- making it ready ---

    async def _prepare(self, request: Request) -> _Outgoing:
        own, origin, url = True, self._origin, request.target
        if url[:1] == "/":
            url = self._base + url
        else:
            own, origin = self._place(url)
        params = request.params
        if own and self._key is not None:
            params = (*params, self._key)
        if params:
            path, _, written = url.partition("?")
            query = encode_query(params, written)
            url = f"{path}?{query}" if query else path
        if len(url) > MAX_URL:
            raise FetchError(f"the URL has {len(url)} characters, the limit is {MAX_URL}", kind="bad_path")
        generation = 0
        if own and self._tokens is not None:
            if not self._tokens.is_fresh:
                await self._tokens.obtain(self._told_of_refresh)
            generation = self._tokens.generation
        headers, body, explicit = self._ready, None, False
        usual = own and headers is not None and generation == self._ready_for and not self._dynamic
        if not usual or request.headers or request.has_body or request.effect_key is not None:
            headers, body, explicit = self._headers(request, own=own, generation=generation)
        assert headers is not None
        route = self._route if own else None
        if route is None:
            trusted = self.settings.base_trusted if own else origin in self.settings.literal_origins
            route = self._transport.route(origin, trusted=trusted, connect_timeout_seconds=self._connect_seconds)
            if own:
                self._route = route
        return _Outgoing(
            request.method,
            url,
            headers,
            body,
            route,
            own,
            own and not explicit,
            request.timeout_seconds or self.settings.timeout_seconds,
            generation,
        )

    @property
    def _connect_seconds(self) -> float:
        return self.settings.connect_timeout_seconds or min(_CONNECT_SECONDS, self.settings.timeout_seconds)

    def _is_own(self, url: str) -> bool:
        try:
            return origin_of(url.partition("?")[0]) == self._origin
        except ValueError:
            return False

    def _place(self, url: str) -> tuple[bool, str]:
        """Whether an absolute URL is of the source's own origin; and its origin, if it may be asked at all."""
        try:
            origin = origin_of(url.partition("?")[0])
        except ValueError as error:
            raise FetchError(f"cannot ask for this URL: {error}", kind="bad_path") from None
        if origin == self._origin:
            return True, origin
        if origin not in self.settings.literal_origins and origin not in self.settings.allow_origins:
            raise FetchError(
                f"the URL leads to {origin}, which is not the origin of source '{self.settings.name}'",
                kind="origin_blocked",
                hint=f'if it is meant, add allowOrigins: ["{origin}"] to the source',
            )
        return False, origin

    def _headers(self, request: Request, *, own: bool, generation: int) -> tuple[Mapping[str, str], bytes | None, bool]:
        """The request's headers and body; and whether it brings its own Authorization."""
        credentials: tuple[tuple[str, str], ...] = ()
        source: list[tuple[str, Value]] = []
        if own:
            credentials = self._fixed if self._tokens is None else self._tokens.headers
            source = [(name, value() if callable(value) else value) for name, value in self.settings.headers]
            if self.settings.propagate_trace:
                source.append(("traceparent", traceparent()))
        key = self._idempotency_key(request)
        chosen = merged(_DEFAULTS, source, credentials, key, request.headers)
        body = None
        if request.has_body and request.method != "GET":
            written = chosen.get("content-type")
            body, default = encode_body(request.body, written[1] if written else None)
            if default is not None:
                chosen["content-type"] = checked("Content-Type", default)
        made = self._transport.headers(pairs(chosen))
        if own and not request.headers and body is None and not key and not self._dynamic:
            self._ready, self._ready_for = made, generation
        return made, body, any(name.lower() == "authorization" for name, _ in request.headers)

    def _idempotency_key(self, request: Request) -> tuple[tuple[str, str], ...]:
        name = self.settings.idempotency_header
        if name is None or request.effect_key is None or request.method not in _WITH_EFFECT:
            return ()
        digest = sha256(request.effect_key.encode()).digest()
        return ((name, b32encode(digest).decode().rstrip("=")),)

    # --- sending ---

    async def _exchange(self, request: Request, out: _Outgoing, started: float) -> RawAnswer:
        answer = await self._transport.exchange(
            out.route,
            out.method,
            out.url,
            out.headers,
            out.body,
            timeout_seconds=out.timeout,
            limit=self.settings.max_response_bytes,
        )
        if answer.status in STATUSES:
            return await self._follow(request, out, answer, started + out.timeout)
        return answer

    async def _follow(self, request: Request, out: _Outgoing, answer: RawAnswer, deadline: float) -> RawAnswer:
        """Go where redirects lead, within the attempt's time. `out` becomes what is asked in the end."""
        seen = {(out.method, out.url)}
        hops = 0
        while hop := next_hop(out.method, out.url, answer, has_body=bool(out.body), key=self._key if out.own else None):
            hops += 1
            if hops > self.settings.max_redirects:
                raise refused(f"the server redirects more than {self.settings.max_redirects} times (maxRedirects)")
            if (hop.method, hop.url) in seen:
                raise refused("the server redirects in a circle")
            seen.add((hop.method, hop.url))
            if hop.crosses:
                trusted = hop.origin == self._origin or hop.origin in self.settings.literal_origins
                seconds = self._connect_seconds
                out.route = self._transport.route(hop.origin, trusted=trusted, connect_timeout_seconds=seconds)
                out.own = out.may_refresh = False
            if not hop.keeps_body:
                out.body = None
            out.method, out.url = hop.method, hop.url
            out.headers = self._redirected(request, out)
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise TransportError(f"no complete answer within {out.timeout:g} s", kind="timeout", sent=True)
            answer = await self._transport.exchange(
                out.route,
                out.method,
                out.url,
                out.headers,
                out.body,
                timeout_seconds=left,
                limit=self.settings.max_response_bytes,
            )
        return answer

    def _redirected(self, request: Request, out: _Outgoing) -> Mapping[str, str]:
        """The headers without what must not go along."""
        dropped: set[str] = set()
        if out.body is None:
            dropped |= {"content-type", "content-encoding", "content-language"}
        if not out.own:
            tokens = self._tokens.headers if self._tokens is not None else ()
            theirs = {name.lower() for name, _ in (*self.settings.headers, *self._fixed, *tokens)}
            # What the mission wrote on the request itself stays, unless it is a credential by its name.
            telling = {name.lower() for name in out.headers if SECRETS.redact_header(name, "") == "***"}
            own = {name.lower() for name, _ in request.headers} | {name.lower() for name, _ in _DEFAULTS}
            dropped |= (theirs - own) | telling
        return self._transport.headers(tuple((k, v) for k, v in out.headers.items() if k.lower() not in dropped))

    async def _renew(self, request: Request, out: _Outgoing, attempt: int) -> bool:
        """Have another token than the one that was refused; False if there is none to be had."""
        if self._tokens is None:
            return False
        try:
            return await self._tokens.renew(out.generation, self._told_of_refresh)
        except FetchError as error:
            raise self._about(error, request, out, attempt) from error.__cause__

    # --- what follows ---

    def _goes_again(
        self, request: Request, out: _Outgoing, failed: FetchError, outcome: RawAnswer | TransportError, attempt: int
    ) -> bool:
        """Whether the policy lets a failed request try again.

        Raises:
            RateLimitTimeoutError: it would, but the server asks for a longer wait than `maxWait`.
        """
        if isinstance(failed, RateLimitError):
            return False
        if isinstance(outcome, TransportError):
            retryable, sent = outcome.retryable, outcome.sent
        else:
            retryable, sent = is_retryable_status(outcome.status), True
        keyed = request.retry_written or bool(self._idempotency_key(request))
        if not retryable or not may_repeat(request.method, status=failed.status_code, sent=sent, keyed=keyed):
            return False
        wait = failed.retry_after
        if wait is not None and wait > self._gate.max_wait_seconds:
            late = self._gate.too_long(wait)
            late.status_code, late.headers, late.body = failed.status_code, failed.headers, failed.body
            raise self._about(late, request, out, attempt) from failed
        return True

    async def _wait_to_retry(
        self, request: Request, policy: RetryPolicy, failed: FetchError, attempt: int, last: int
    ) -> None:
        wait = failed.retry_after
        if wait is None:
            wait = policy.delay_before(attempt + 1, self._random)
        status = failed.status_code
        if self._wants(FetchRetried):
            self._emit(
                FetchRetried(
                    source=self.settings.name,
                    path=request.template,
                    attempt=attempt,
                    max_attempts=last,
                    reason=failure_reason(failed),
                    wait_ms=round(wait * 1000),
                    status_code=status or None,
                )
            )
        if status == 429:
            await self._gate.sit_out(request, wait)
        else:
            await self._clock.sleep(wait)

    def _reply(self, request: Request, out: _Outgoing, answer: RawAnswer, attempt: int, sent_at: datetime) -> Reply:
        value, is_json = None, False
        if answer.status not in _NO_CONTENT and not request.as_bytes:
            try:
                value, is_json = decode_body(answer.body, answer.headers.get("Content-Type"))
            except FetchError as error:
                error.status_code, error.headers = answer.status, Headers(answer.pairs)
                raise self._about(error, request, out, attempt) from error.__cause__
        return Reply(
            status=answer.status,
            headers=Headers(answer.pairs),
            value=value,
            raw=answer.body,
            is_json=is_json,
            url=out.url,
            attempts=attempt,
            sent_at=sent_at,
        )

    def _failed(
        self,
        request: Request,
        out: _Outgoing,
        outcome: RawAnswer | TransportError,
        attempt: int,
        retry_after: float | None,
    ) -> FetchError:
        if isinstance(outcome, TransportError):
            return self._about(from_transport(outcome, self.settings), request, out, attempt)
        return self._about(from_answer(outcome, self.settings, retry_after), request, out, attempt)

    def _about(self, error: FetchError, request: Request, out: _Outgoing | None, attempt: int) -> FetchError:
        """The same error, saying which request it is about."""
        url = out.url if out is not None else request.target
        if url[:1] == "/":
            url = self._base + url
        return error.concerning(source=self.settings.name, method=request.method, url=url, attempts=attempt)

    # --- telling ---

    def _tell_of_answer(self, request: Request, code: str, started: float) -> None:
        self._emit(
            RequestAnswered(
                source=self.settings.name,
                method=request.method,
                code=code,
                seconds=self._clock.monotonic() - started,
                remaining=self._gate.remaining,
            )
        )

    def _told_of_refresh(self, reason: str, error: str | None, expires_at: datetime | None) -> None:
        name = self.settings.name
        self._emit(AuthRefreshed(source=name, reason=reason, success=error is None, error=error, expires_at=expires_at))
