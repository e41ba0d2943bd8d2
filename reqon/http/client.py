"""One source of one mission: asks the deciders, does the sending, tells what happened (spec/runtime.md, stages B to I)."""

from base64 import b32encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urljoin

from reqon.__about__ import __version__
from reqon.clock import Clock, rfc3339
from reqon.errors import CircuitBreakerError, FetchError, RateLimitError, RateLimitTimeoutError
from reqon.events import (
    AuthRefreshed,
    BreakerChanged,
    Event,
    FetchRetried,
    RateLimitHit,
    RateLimitResumed,
    RateLimitWaiting,
    RequestAnswered,
)
from reqon.http.addresses import host_of, origin_of
from reqon.http.auth import Credentials
from reqon.http.body import decode_body, encode_body
from reqon.http.breaker import Breaker, Transition
from reqon.http.coding import ACCEPTED
from reqon.http.headers import checked, merged, pairs
from reqon.http.messages import Headers, RateLimitSettings, Reply, Request, SourceSettings
from reqon.http.paths import MAX_URL, encode_query
from reqon.http.rate_limit import RateLimiter
from reqon.http.retry import RetryPolicy, http_date, is_retryable_status, may_repeat, retry_after_seconds
from reqon.http.tokens import Tokens
from reqon.http.transport import RawAnswer, Route, Transport, TransportError
from reqon.secrets import SECRETS
from reqon.values import Value

Emit = Callable[[Event], None]
Wants = Callable[..., bool]

FailedT = TypeVar("FailedT", bound=FetchError)

_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_LIMITS = RateLimitSettings()
_CONNECT_SECONDS = 10.0
_SOONEST = 0.0005  # a wait below half a millisecond is none
_NOTICE_SECONDS = 10.0
_KEPT_SECONDS = 5.0
_WITH_EFFECT = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_BREAKER_NEUTRAL = frozenset((408, 425, 429))
_NO_CONTENT = frozenset((204, 205, 304))
_DEFAULTS = (("Accept", "application/json"), ("User-Agent", f"reqon/{__version__}"), ("Accept-Encoding", ACCEPTED))


@dataclass(slots=True, eq=False)
class SharedState:
    """What all missions of a process know of one source: limits, breaker, tokens, quotas of single endpoints."""

    limiter: RateLimiter
    breaker: Breaker | None
    tokens: Tokens | None
    endpoints: dict[tuple[str, str], RateLimiter]
    keep_limits: Callable[[], Any]


@dataclass(slots=True)
class _Outgoing:
    """A request made ready: what the transport gets, and what decides about it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    route: Route
    own: bool  # goes to the source's origin, under its limits and with its credentials
    may_refresh: bool
    timeout: float
    generation: int = 0


class Client:
    """Sends one source's requests. Made by `Connections.client`; safe for many tasks at once."""

    def __init__(
        self,
        settings: SourceSettings,
        credentials: Credentials | None,
        *,
        transport: Transport,
        shared: SharedState,
        clock: Clock,
        random: Callable[[], float],
        emit: Emit,
        wants: Wants,
    ) -> None:
        self.settings = settings
        self._credentials = credentials
        self._transport = transport
        self._shared = shared
        self._clock = clock
        self._random = random
        self._emit = emit
        self._wants = wants
        self._origin = origin_of(settings.base)
        self._base = settings.base.rstrip("/")
        presents = credentials is not None and credentials.may_go_to(host_of(self._origin))
        self._tokens = shared.tokens if presents else None
        self._fixed = credentials.headers if presents and credentials and self._tokens is None else ()
        self._key = credentials.parameter if presents and credentials else None
        self._dynamic = any(callable(value) for _, value in settings.headers)
        self._route: Route | None = None
        self._ready: Mapping[str, str] | None = None
        self._ready_for = -1
        self._max_wait = (settings.rate_limit or _DEFAULT_LIMITS).max_wait_seconds

    # --- for the runtime ---

    async def send(self, request: Request, *, single: bool = False) -> Reply:
        """Send, with retries, refreshes and waits, until there is an answer or no hope. `single`: no automatic retries.

        Raises:
            FetchError: the failure that remains, with the answer's body and headers where there was one.
        """
        policy = request.retry or self.settings.retry or _DEFAULT_RETRY
        last = 1 if single else policy.max_attempts
        attempt, refreshed = 1, False
        sent_at: datetime | None = None
        while True:
            out: _Outgoing | None = None
            answer: RawAnswer | None = None
            failure: TransportError | None = None
            ticket = 0
            admission = self._admit(request, attempt) if self._shared.breaker is not None else None
            try:
                out = await self._prepare(request)
                if out.own:
                    ticket = await self._permit(request)
                started = self._clock.monotonic()
                if sent_at is None:
                    sent_at = self._clock.now()
                try:
                    answer = await self._exchange(request, out, started)
                except TransportError as broken:
                    failure = broken
            except FetchError as error:
                self._undecided(admission)
                raise self._about(error, request, out, attempt) from error.__cause__
            except BaseException:
                self._undecided(admission)
                raise
            if self._wants(RequestAnswered):
                code = str(answer.status) if answer else failure.kind if failure else ""
                seconds = self._clock.monotonic() - started
                self._emit(
                    RequestAnswered(source=self.settings.name, method=request.method, code=code, seconds=seconds)
                )
            retry_after = None
            if answer is not None:
                status = answer.status
                if status >= 400:
                    retry_after = retry_after_seconds(answer.headers, self._clock.now())
                if out.own:
                    self._learn(ticket, answer, retry_after)
                    self._judge(admission, status=status, kind=None)
                else:
                    self._undecided(admission)
                if 200 <= status < 300 or status == 304:
                    return self._reply(request, out, answer, attempt, sent_at)
                if status == 401 and out.may_refresh and not refreshed and await self._renew(request, out, attempt):
                    refreshed = True
                    continue
            elif failure is not None:
                self._judge(admission, status=0, kind=failure.kind)
            failed = self._error(request, out, answer, failure, attempt, retry_after)
            if not self._goes_again(request, failed, failure, attempt, last):
                raise failed from failure
            await self._wait_to_retry(request, policy, failed, attempt, last)
            attempt += 1

    def adopt(self, value: Value) -> bool:
        """Take a token out of another action's response (spec/runtime.md 3.5); whether there was one."""
        tokens = self._shared.tokens
        return tokens is not None and tokens.adopt(value)

    # --- stage A: making it ready ---

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
        tokens = self._tokens
        if own and tokens is not None:
            if not tokens.is_fresh:
                await tokens.obtain(self._told_of_refresh)
            generation = tokens.generation
        headers = self._ready
        body = None
        explicit = False
        if (
            not own
            or headers is None
            or generation != self._ready_for
            or request.headers
            or request.has_body
            or self._dynamic
        ):
            headers, body, explicit = self._headers(request, own=own, generation=generation)
        elif request.effect_key is not None and request.method in _WITH_EFFECT:
            headers, body, explicit = self._headers(request, own=own, generation=generation)
        route = self._route
        if not own or route is None:
            route = self._transport.route(origin, trusted=True, connect_timeout_seconds=self._connect_seconds())
            if own:
                self._route = route
        return _Outgoing(
            method=request.method,
            url=url,
            headers=headers,
            body=body,
            route=route,
            own=own,
            may_refresh=own and not explicit,
            timeout=request.timeout_seconds or self.settings.timeout_seconds,
            generation=generation,
        )

    def _connect_seconds(self) -> float:
        return self.settings.connect_timeout_seconds or min(_CONNECT_SECONDS, self.settings.timeout_seconds)

    def _place(self, url: str) -> tuple[bool, str]:
        """Whether an absolute URL is the source's own origin; and its origin, if it may be asked at all."""
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
        credentials: tuple[tuple[str, str], ...] = ()
        source: list[tuple[str, Value]] = []
        if own:
            credentials = self._fixed if self._tokens is None else self._tokens.headers
            source = [(k, v() if callable(v) else v) for k, v in self.settings.headers]
        key: tuple[tuple[str, str], ...] = ()
        name = self.settings.idempotency_header
        if name and request.effect_key is not None and request.method in _WITH_EFFECT:
            key = ((name, b32encode(sha256(request.effect_key.encode()).digest()).decode().rstrip("=")),)
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
        return made, body, any(k.lower() == "authorization" for k, _ in request.headers)

    # --- stages B and C: may it go? ---

    def _admit(self, request: Request, attempt: int) -> int | None:
        if request.target[:1] != "/" and not self._is_own(request.target):
            return None
        breaker = self._shared.breaker
        assert breaker is not None
        now = self._clock.monotonic()
        admission, change = breaker.admit(now)
        self._told_of_breaker(change)
        if admission is not None:
            return admission
        left = breaker.seconds_left(now)
        error = CircuitBreakerError(
            f"the circuit breaker of source '{self.settings.name}' is {breaker.state}",
            kind="circuit_open",
            retry_after=round(left, 3),
            hint=f"the source failed {breaker.failures} times; the next attempt is possible in {left:.1f} s",
        )
        error.next_attempt_in = left
        error.opened_at = breaker.opened_since(now, self._clock.now())
        raise self._about(error, request, None, attempt - 1)

    def _is_own(self, url: str) -> bool:
        try:
            return origin_of(url.partition("?")[0]) == self._origin
        except ValueError:
            return False

    async def _permit(self, request: Request) -> int:
        """Wait for a slot; the limiter's ticket."""
        limiter = self._shared.limiter
        now = self._clock.monotonic()
        if request.rate_limit is None and limiter.next_slot(now) <= now:
            return limiter.take(now)
        return await self._queue(request, limiter, self._endpoint(request))

    def _endpoint(self, request: Request) -> RateLimiter | None:
        if request.rate_limit is None:
            return None
        key = (request.method, request.template)
        found = self._shared.endpoints.get(key)
        if found is None:
            found = self._shared.endpoints[key] = RateLimiter(request.rate_limit)
        found.use(request.rate_limit)
        return found

    async def _queue(self, request: Request, limiter: RateLimiter, endpoint: RateLimiter | None) -> int:
        settings = self.settings.rate_limit or _DEFAULT_LIMITS
        began = now = self._clock.monotonic()
        told = False
        while True:
            at = limiter.next_slot(now)
            if endpoint is not None:
                at = max(at, endpoint.next_slot(at))
            if at - now >= _SOONEST:
                self._told_of_limit(RateLimitHit, request, limiter, at - now, now) if not told else None
                told = True
                self._refuse_wait(request, settings, at - began, at - now)
            ticket = limiter.take(at)
            if endpoint is not None:
                endpoint.take(at)
            if at - now < _SOONEST:
                break
            try:
                if at - now > _KEPT_SECONDS:
                    await self._shared.keep_limits()
                await self._sleep(request, limiter, at, began)
                now = self._clock.monotonic()
                if limiter.held_until(now) - now < _SOONEST:
                    break
            except BaseException:
                limiter.give_back(at)
                if endpoint is not None:
                    endpoint.give_back(at)
                raise
            limiter.give_back(at)
            if endpoint is not None:
                endpoint.give_back(at)
        if told:
            waited = self._clock.monotonic() - began
            self._emit(RateLimitResumed(source=self.settings.name, waited_seconds=waited, endpoint=request.template))
        return ticket

    def _refuse_wait(self, request: Request, settings: RateLimitSettings, total: float, wait: float) -> None:
        name = self.settings.name
        if settings.strategy == "fail":
            raise RateLimitError(
                f"the rate limit of source '{name}' is reached", kind="rate_limit", retry_after=round(wait, 3)
            )
        if total > settings.max_wait_seconds:
            raise self._waits_too_long(request, wait, total - wait)

    def _waits_too_long(self, request: Request, wait: float, waited: float) -> RateLimitTimeoutError:
        error = RateLimitTimeoutError(
            f"source '{self.settings.name}' would have to wait {wait:.0f} s, more than maxWait ({self._max_wait:g} s)",
            kind="rate_limit",
            retry_after=round(wait, 3),
            hint="raise maxWait in the source's rateLimit, or run the mission later",
        )
        error.waited, error.max_wait = waited, self._max_wait
        return error

    async def _sleep(self, request: Request, limiter: RateLimiter, until: float, began: float) -> None:
        """Sleep to a moment; from `notifyAt` on, say so every 10 s."""
        notice = began + (self.settings.rate_limit or _DEFAULT_LIMITS).notify_at_seconds
        now = self._clock.monotonic()
        while notice < until and self._wants(RateLimitWaiting):
            await self._clock.sleep(max(0.0, notice - now))
            now = self._clock.monotonic()
            self._told_of_limit(RateLimitWaiting, request, limiter, until - now, now, elapsed_seconds=now - began)
            notice += _NOTICE_SECONDS
        if until > now:
            await self._clock.sleep(until - now)

    # --- stage E: sending ---

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
        if answer.status in _REDIRECTS:
            return await self._follow(request, out, answer, started + out.timeout)
        return answer

    async def _follow(self, request: Request, out: _Outgoing, answer: RawAnswer, deadline: float) -> RawAnswer:
        """Go where redirects lead, within the attempt's time. `out` is changed to what is asked in the end."""
        with_source = out.own
        seen = {(out.method, out.url)}
        for _ in range(self.settings.max_redirects):
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = urljoin(out.url, location).partition("#")[0]
            origin = _redirect_origin(url, out.url)
            crosses = origin != origin_of(out.url.partition("?")[0])
            if answer.status == 303 or (answer.status in (301, 302) and out.method == "POST"):
                out.method, out.body = ("HEAD" if out.method == "HEAD" else "GET"), None
            if crosses:
                if out.body:
                    raise _bad_redirect("the server redirects a request with a body to another origin")
                with_source = False
                url = _without_parameter(url, self._key)
            elif with_source and self._key is not None:
                path, _, written = url.partition("?")
                url = f"{path}?{encode_query((self._key,), written)}"
            if (out.method, url) in seen:
                raise _bad_redirect("the server redirects in a circle")
            seen.add((out.method, url))
            trusted = origin == self._origin or origin in self.settings.literal_origins
            if crosses:
                out.route = self._transport.route(
                    origin, trusted=trusted, connect_timeout_seconds=self._connect_seconds()
                )
            out.headers = self._redirected_headers(request, out, own=with_source)
            out.url, out.own = url, out.own and with_source
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise TransportError(f"no complete answer within {out.timeout:g} s", kind="timeout", sent=True)
            answer = await self._transport.exchange(
                out.route,
                out.method,
                url,
                out.headers,
                out.body,
                timeout_seconds=left,
                limit=self.settings.max_response_bytes,
            )
        if answer.status in _REDIRECTS and answer.headers.get("Location"):
            raise _bad_redirect(f"the server redirects more than {self.settings.max_redirects} times (maxRedirects)")
        return answer

    def _redirected_headers(self, request: Request, out: _Outgoing, *, own: bool) -> Mapping[str, str]:
        dropped = set() if own else {"authorization", "proxy-authorization", "cookie"}
        if not own:
            dropped |= {k.lower() for k, _ in (*self.settings.headers, *self._fixed)}
            dropped |= {k.lower() for k, _ in request.headers if SECRETS.redact_header(k, "value") != "value"}
            dropped -= {k.lower() for k, _ in _DEFAULTS}
        if out.body is None:
            dropped |= {"content-type", "content-encoding", "content-language"}
        return self._transport.headers(tuple((k, v) for k, v in out.headers.items() if k.lower() not in dropped))

    # --- stages F and G: learning, refreshing ---

    def _learn(self, ticket: int, answer: RawAnswer, retry_after: float | None) -> None:
        self._shared.limiter.learn(
            ticket,
            answer.status,
            answer.headers,
            now=self._clock.monotonic(),
            wall=self._clock.now,
            retry_after=retry_after,
        )

    def _judge(self, admission: int | None, *, status: int, kind: str | None) -> None:
        """Tell the breaker how an attempt ended."""
        breaker = self._shared.breaker
        if breaker is None or admission is None:
            return
        settings = breaker.settings
        now = self._clock.monotonic()
        if kind in ("network", "timeout"):
            if settings.count_network_errors:
                self._told_of_breaker(breaker.failed(admission, now, kind))
            else:
                breaker.undecided(admission)
        elif kind is None and status in settings.failure_status_codes:
            self._told_of_breaker(breaker.failed(admission, now, f"HTTP {status}"))
        elif kind is None and status not in _BREAKER_NEUTRAL and not (300 <= status < 400 and status != 304):
            self._told_of_breaker(breaker.succeeded(admission))
        else:
            breaker.undecided(admission)

    def _undecided(self, admission: int | None) -> None:
        if admission is not None and self._shared.breaker is not None:
            self._shared.breaker.undecided(admission)

    async def _renew(self, request: Request, out: _Outgoing, attempt: int) -> bool:
        """Have another token than the one the request was refused with; False if there is none to be had."""
        if self._tokens is None:
            return False
        try:
            return await self._tokens.renew(out.generation, self._told_of_refresh)
        except FetchError as error:
            raise self._about(error, request, out, attempt) from error.__cause__

    # --- stage H: again? ---

    def _goes_again(
        self, request: Request, error: FetchError, failure: TransportError | None, attempt: int, last: int
    ) -> bool:
        if attempt >= last or isinstance(error, RateLimitError):
            return False
        retryable = failure.retryable if failure is not None else is_retryable_status(error.status_code)
        keyed = request.retry_written or (
            self.settings.idempotency_header is not None and request.effect_key is not None
        )
        sent = failure is None or failure.sent
        if not retryable or not may_repeat(request.method, status=error.status_code, sent=sent, keyed=keyed):
            return False
        if error.retry_after is not None and error.retry_after > self._max_wait:
            late = self._waits_too_long(request, error.retry_after, 0.0)
            late.status_code, late.headers, late.body = error.status_code, error.headers, error.body
            raise self._about(late, request, None, attempt) from error
        return True

    async def _wait_to_retry(
        self, request: Request, policy: RetryPolicy, error: FetchError, attempt: int, last: int
    ) -> None:
        wait = error.retry_after
        if wait is None:
            wait = policy.delay_before(attempt + 1, self._random)
        name, limited = self.settings.name, error.status_code == 429
        now = self._clock.monotonic()
        if limited:
            self._told_of_limit(RateLimitHit, request, self._shared.limiter, wait, now)
        if self._wants(FetchRetried):
            status = error.status_code
            self._emit(
                FetchRetried(
                    source=name,
                    path=request.template,
                    attempt=attempt,
                    max_attempts=last,
                    reason="rate_limit" if limited else error.kind if error.kind != "http" else f"http_{status}",
                    wait_ms=round(wait * 1000),
                    status_code=status or None,
                )
            )
        if wait > _KEPT_SECONDS:
            await self._shared.keep_limits()
        if limited:
            await self._sleep(request, self._shared.limiter, now + wait, now)
            self._emit(RateLimitResumed(source=name, waited_seconds=wait, endpoint=request.template))
        else:
            await self._clock.sleep(wait)

    # --- stage I: what comes out ---

    def _reply(self, request: Request, out: _Outgoing, answer: RawAnswer, attempt: int, sent_at: datetime) -> Reply:
        headers = answer.headers
        value, is_json = None, False
        if answer.status not in _NO_CONTENT:
            try:
                value, is_json = decode_body(answer.body, headers.get("Content-Type"))
            except FetchError as error:
                error.status_code, error.headers = answer.status, Headers(answer.pairs)
                raise self._about(error, request, out, attempt) from error
        return Reply(
            status=answer.status,
            headers=Headers(answer.pairs),
            value=value,
            raw=answer.body,
            is_json=is_json,
            url=out.url,
            attempts=attempt,
            sent_at=sent_at,
            date=http_date(headers.get("Date")),
        )

    def _error(
        self,
        request: Request,
        out: _Outgoing,
        answer: RawAnswer | None,
        failure: TransportError | None,
        attempt: int,
        retry_after: float | None,
    ) -> FetchError:
        """The failure as an error; still to be decided whether it is raised."""
        if answer is None:
            assert failure is not None
            error = FetchError(failure.message, kind=failure.kind, hint=_hint_for(failure, self.settings))
            return self._about(error, request, out, attempt)
        body = _error_body(answer)
        kind = "redirect" if 300 <= answer.status < 400 else "http"
        text = f"{answer.status} {_phrase(answer.status)}".strip()
        hint = _said(body)
        limits = self.settings.rate_limit
        if answer.status == 429 and limits is not None and limits.strategy == "fail":
            error = RateLimitError(text, kind="rate_limit", retry_after=retry_after, hint=hint)
        else:
            if answer.status == 401 and hint is None:
                hint = f"check the credentials of source '{self.settings.name}'"
            error = FetchError(text, kind=kind, retry_after=retry_after, hint=hint)
        error.status_code, error.headers, error.body = answer.status, Headers(answer.pairs), body
        return self._about(error, request, out, attempt)

    def _about(self, error: FailedT, request: Request, out: _Outgoing | None, attempt: int) -> FailedT:
        """The same error, saying which request it is about."""
        url = (
            out.url
            if out is not None
            else request.target
            if "://" in request.target[:8]
            else self._base + request.target
        )
        return error.concerning(source=self.settings.name, method=request.method, url=url, attempts=attempt)

    # --- telling ---

    def _told_of_breaker(self, change: Transition | None) -> None:
        if change is not None:
            self._emit(
                BreakerChanged(
                    source=self.settings.name,
                    state=change.state,
                    previous_state=change.previous,
                    failures=change.failures,
                    reason=change.reason,
                )
            )

    def _told_of_limit(
        self, kind: Any, request: Request, limiter: RateLimiter, wait: float, now: float, **more: float
    ) -> None:
        if self._wants(kind):
            reset = limiter.reset_at(now, self._clock.now())
            settings = self.settings.rate_limit or _DEFAULT_LIMITS
            self._emit(
                kind(
                    source=self.settings.name,
                    wait_seconds=wait,
                    strategy=settings.strategy,
                    endpoint=request.template,
                    remaining=limiter.remaining,
                    reset_at=rfc3339(reset) if reset else None,
                    **more,
                )
            )

    def _told_of_refresh(self, reason: str, error: str | None, expires_at: datetime | None) -> None:
        self._emit(
            AuthRefreshed(
                source=self.settings.name, reason=reason, success=error is None, error=error, expires_at=expires_at
            )
        )


# --- words -------------------------------------------------------------------------------------------------------------


def envelope(error: FetchError) -> dict[str, Value]:
    """A failure as the value that a guarding `match` looks at (spec/runtime.md 2.7)."""
    body = error.body
    fields: dict[str, Value] = dict(body) if isinstance(body, dict) else {}
    said = fields.get("error")
    if said is None:
        message = fields.get("message")
        said = message if isinstance(message, str) else _name_of(error)
    fields["error"] = said
    fields["code"] = error.status_code
    fields["kind"] = error.kind
    fields.setdefault("status", error.status_code)
    if error.retry_after is not None:
        fields.setdefault("retryAfter", error.retry_after)
    fields["headers"] = error.headers
    fields["body"] = body
    if isinstance(error, CircuitBreakerError):
        fields |= {"circuitOpen": True, "service": error.source, "openedAt": error.opened_at}
    if errors := getattr(error, "errors", None):
        fields["validationErrors"] = list(errors)
    return fields


def _name_of(error: FetchError) -> str:
    if error.status_code == 429:
        return "rate_limit"
    if error.kind != "http":
        return error.kind
    return f"HTTP {error.status_code} {_phrase(error.status_code)}".strip()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _error_body(answer: RawAnswer) -> Value:
    """An error answer's body as far as it can be read; null if not."""
    try:
        return decode_body(answer.body, answer.headers.get("Content-Type"))[0]
    except FetchError:
        return None


def _said(body: Value) -> str | None:
    """What the API itself says about a failure, for the hint: short, on one line."""
    said = body
    for name in ("error", "message", "detail", "title", "error_description"):
        if isinstance(body, dict) and body.get(name):
            said = body[name]
            break
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail")
    if not isinstance(said, str) or said.lstrip()[:1] in ("", "<"):
        return None
    text = "".join(c if c.isprintable() else " " for c in said[:300])
    return f'{"the API says"}: "{text}"'


def _hint_for(failure: TransportError, settings: SourceSettings) -> str | None:
    if failure.kind == "too_large":
        return "ask for smaller pages, or raise maxResponseBytes of the source"
    if failure.kind == "timeout":
        return f"raise timeout of source '{settings.name}', if the API is known to be slow"
    if not failure.sent and failure.kind == "network":
        return f"is {host_of(origin_of(settings.base))} the right host, and can this machine reach it?"
    return None


def _redirect_origin(url: str, current: str) -> str:
    try:
        origin = origin_of(url.partition("?")[0])
    except ValueError as error:
        raise _bad_redirect(f"the server redirects to something that cannot be asked: {error}") from None
    if current.startswith("https:") and not origin.startswith("https:"):
        raise _bad_redirect("the server redirects from https to http")
    if any(c <= " " or c == "\x7f" or c == "\\" for c in url) or len(url) > MAX_URL:
        raise _bad_redirect("the server redirects to an invalid URL")
    return origin


def _bad_redirect(message: str) -> TransportError:
    return TransportError(message, kind="redirect", sent=True)


def _without_parameter(url: str, key: tuple[str, str] | None) -> str:
    """The URL without the API key's parameter, which a server may have copied into its redirect."""
    if key is None or "?" not in url:
        return url
    path, _, query = url.partition("?")
    kept = [p for p in query.split("&") if key[0] not in dict(parse_qsl(p, keep_blank_values=True))]
    return f"{path}?{'&'.join(kept)}" if kept else path
