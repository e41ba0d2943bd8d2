"""Whether and when a source's request may go: asks breaker and limiters, waits, and says so (stages B, C and F)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from reqon.clock import Clock, rfc3339
from reqon.errors import CircuitBreakerError, RateLimitError, RateLimitTimeoutError
from reqon.events import BreakerChanged, Event, RateLimitHit, RateLimitResumed, RateLimitWaiting
from reqon.http.breaker import Breaker, Transition
from reqon.http.messages import RateLimitSettings, Request, SourceSettings
from reqon.http.rate_limit import RateLimiter
from reqon.http.tokens import Tokens
from reqon.http.transport import RawAnswer

Emit = Callable[[Event], None]
Wants = Callable[..., bool]

_DEFAULT_LIMITS = RateLimitSettings()
_SOONEST = 0.0005  # a wait below half a millisecond is none
_NOTICE_SECONDS = 10.0
_KEPT_SECONDS = 5.0
_ENDPOINTS = 10_000
_BREAKER_NEUTRAL = frozenset((408, 425, 429))


@dataclass(slots=True, eq=False)
class SharedState:
    """What all missions of a process know of one source: limits, breaker, tokens, quotas of single endpoints."""

    limiter: RateLimiter
    tokens: Tokens | None
    keep_limits: Callable[[], Awaitable[None]]
    breaker: Breaker | None = None
    endpoints: dict[tuple[str, str], RateLimiter] = field(default_factory=dict)


class Gate:
    """One client's way through the shared limits of its source."""

    def __init__(
        self, settings: SourceSettings, shared: SharedState, clock: Clock, *, emit: Emit, wants: Wants
    ) -> None:
        self._source = settings.name
        self._limits = settings.rate_limit or _DEFAULT_LIMITS
        self._shared = shared
        self._clock = clock
        self._emit = emit
        self._wants = wants

    # --- the breaker ---

    def admit(self) -> int:
        """An admission for one attempt; hand it to `judge` or `undecided`.

        Raises:
            CircuitBreakerError: the breaker is open, or its one probe is under way.
        """
        breaker = self._shared.breaker
        if breaker is None:
            return 0
        now = self._clock.monotonic()
        admission, change = breaker.admit(now)
        self._told_of_breaker(change)
        if admission is not None:
            return admission
        left = breaker.seconds_left(now)
        error = CircuitBreakerError(
            f"the circuit breaker of source '{self._source}' is {breaker.state}",
            kind="circuit_open",
            retry_after=round(left, 3),
            hint=f"too many requests to it failed; the next attempt is possible in {left:.1f} s",
        )
        error.next_attempt_in = left
        error.opened_at = breaker.opened_since(now, self._clock.now())
        raise error

    def judge(self, admission: int, *, status: int = 0, kind: str | None = None) -> None:
        """Tell the breaker how an attempt ended: with a status, or with a kind of failure."""
        breaker = self._shared.breaker
        if breaker is None:
            return
        now = self._clock.monotonic()
        if kind is not None:
            if kind in ("network", "timeout") and breaker.settings.count_network_errors:
                self._told_of_breaker(breaker.failed(admission, now, kind))
            else:
                breaker.undecided(admission)
        elif status in breaker.settings.failure_status_codes:
            self._told_of_breaker(breaker.failed(admission, now, f"HTTP {status}"))
        elif status in _BREAKER_NEUTRAL or (300 <= status < 400 and status != 304):
            breaker.undecided(admission)
        else:
            self._told_of_breaker(breaker.succeeded(admission))

    def undecided(self, admission: int) -> None:
        """The attempt says nothing about the service: cancelled, or never sent."""
        if self._shared.breaker is not None:
            self._shared.breaker.undecided(admission)

    # --- the limits ---

    @property
    def remaining(self) -> int | None:
        """Requests that the API says are left."""
        return self._shared.limiter.remaining

    @property
    def max_wait_seconds(self) -> float:
        return self._limits.max_wait_seconds

    def permit_now(self, request: Request) -> int:
        """A ticket, if the request may go at once; else 0."""
        if request.rate_limit is not None:
            return 0
        limiter = self._shared.limiter
        now = self._clock.monotonic()
        return limiter.take(now) if limiter.next_slot(now) <= now else 0

    async def permit(self, request: Request) -> int:
        """Wait for a slot; the ticket that `learn` wants back.

        Raises:
            RateLimitError: the strategy is `fail`, or the wait would exceed `maxWait`.
        """
        limiters = [self._shared.limiter]
        if request.rate_limit is not None:
            limiters.append(self._endpoint(request, request.rate_limit))
        began = now = self._clock.monotonic()
        told = False
        while True:
            at = now
            for limiter in limiters:
                at = max(at, limiter.next_slot(at))
            wait = at - now
            if wait >= _SOONEST:
                if not told:
                    self._tell(RateLimitHit, request, wait, now)
                    told = True
                self._refuse(wait, at - began)
            ticket = next(iter([limiter.take(at) for limiter in limiters]))
            if wait < _SOONEST or await self._slept(request, limiters, at, began):
                break
            now = self._clock.monotonic()
        if told:
            waited = self._clock.monotonic() - began
            self._emit(RateLimitResumed(source=self._source, waited_seconds=waited, endpoint=request.template))
        return ticket

    def learn(self, ticket: int, answer: RawAnswer, retry_after: float | None) -> None:
        """Hear what an answer says about the limits."""
        self._shared.limiter.learn(
            ticket,
            answer.status,
            answer.headers,
            now=self._clock.monotonic(),
            wall=self._clock.now,
            retry_after=retry_after,
        )

    async def sit_out(self, request: Request, seconds: float) -> None:
        """Wait because the API said 429."""
        now = self._clock.monotonic()
        self._tell(RateLimitHit, request, seconds, now)
        if seconds > _KEPT_SECONDS:
            await self._shared.keep_limits()
        await self._sleep(request, now + seconds, now)
        self._emit(RateLimitResumed(source=self._source, waited_seconds=seconds, endpoint=request.template))

    def too_long(self, wait: float, waited: float = 0.0) -> RateLimitTimeoutError:
        """The error of a wait that would exceed `maxWait`."""
        limit = self._limits.max_wait_seconds
        error = RateLimitTimeoutError(
            f"source '{self._source}' asks to wait {_shown(wait)} s, more than maxWait ({limit:g} s)",
            kind="rate_limit",
            retry_after=round(wait, 3),
            hint="raise maxWait in the source's rateLimit, or run the mission later",
        )
        error.waited, error.max_wait = waited, limit
        return error

    def _endpoint(self, request: Request, settings: RateLimitSettings) -> RateLimiter:
        key = (request.method, request.template)
        found = self._shared.endpoints.get(key)
        if found is None:
            if len(self._shared.endpoints) >= _ENDPOINTS:
                self._shared.endpoints.clear()
            found = self._shared.endpoints[key] = RateLimiter(settings)
        found.use(settings)
        return found

    def _refuse(self, wait: float, total: float) -> None:
        if self._limits.strategy == "fail":
            raise RateLimitError(
                f"the rate limit of source '{self._source}' is reached",
                kind="rate_limit",
                retry_after=round(wait, 3),
                hint="the strategy is fail; with pause the request would wait",
            )
        if total > self._limits.max_wait_seconds:
            raise self.too_long(wait, total - wait)

    async def _slept(self, request: Request, limiters: list[RateLimiter], at: float, began: float) -> bool:
        """Sleep to a booked slot; False, the slot given back, if the server has held requests further meanwhile."""
        try:
            if at - self._clock.monotonic() > _KEPT_SECONDS:
                await self._shared.keep_limits()
            await self._sleep(request, at, began)
            now = self._clock.monotonic()
            if self._shared.limiter.held_until(now) - now < _SOONEST:
                return True
        except BaseException:
            _give_back(limiters, at)
            raise
        _give_back(limiters, at)
        return False

    async def _sleep(self, request: Request, until: float, began: float) -> None:
        """Sleep to a moment; from `notifyAt` on, say so every 10 s."""
        notice = began + self._limits.notify_at_seconds
        now = self._clock.monotonic()
        while notice < until and self._wants(RateLimitWaiting):
            await self._clock.sleep(max(0.0, notice - now))
            now = self._clock.monotonic()
            self._tell(RateLimitWaiting, request, until - now, now, elapsed_seconds=now - began)
            notice += _NOTICE_SECONDS
        if until > now:
            await self._clock.sleep(until - now)

    # --- telling ---

    def _tell(self, kind: Any, request: Request, wait: float, now: float, **more: float) -> None:
        if self._wants(kind):
            limiter = self._shared.limiter
            reset = limiter.reset_at(now, self._clock.now())
            self._emit(
                kind(
                    source=self._source,
                    wait_seconds=wait,
                    strategy=self._limits.strategy,
                    endpoint=request.template,
                    remaining=limiter.remaining,
                    reset_at=rfc3339(reset) if reset else None,
                    **more,
                )
            )

    def _told_of_breaker(self, change: Transition | None) -> None:
        if change is not None:
            self._emit(
                BreakerChanged(
                    source=self._source,
                    state=change.state.value,
                    previous_state=change.previous.value,
                    failures=change.failures,
                    reason=change.reason,
                )
            )


def _give_back(limiters: list[RateLimiter], at: float) -> None:
    for limiter in limiters:
        limiter.give_back(at)


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds < 1e9 else f"{seconds:.3g}"
