"""Whether and when a source's request may go: asks breaker and limiters, waits, and says so (stages B, C and F)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from reqon.clock import Clock, rfc3339
from reqon.errors import CircuitBreakerError, RateLimitError, RateLimitTimeoutError
from reqon.events import BreakerChanged, Event, RateLimitHit, RateLimitResumed, RateLimitWaiting
from reqon.http.breaker import Transition
from reqon.http.limits import Admission, Endpoint, Limits
from reqon.http.messages import RateLimitSettings, Request, SourceSettings
from reqon.http.tokens import Tokens
from reqon.http.transport import RawAnswer

Emit = Callable[[Event], None]
Wants = Callable[..., bool]

_DEFAULT_LIMITS = RateLimitSettings()
_SOONEST = 0.0005  # a wait below half a millisecond is none
_NOTICE_SECONDS = 10.0
_KEPT_SECONDS = 5.0
_BREAKER_NEUTRAL = frozenset((408, 425, 429))


@dataclass(slots=True, eq=False)
class SharedState:
    """What all missions share of one source: limits and breaker, tokens, and how long waits are kept for a restart."""

    limits: Limits
    tokens: Tokens | None
    keep_limits: Callable[[], Awaitable[None]]


class Gate:
    """One client's way through the shared limits of its source."""

    def __init__(
        self, settings: SourceSettings, shared: SharedState, clock: Clock, *, emit: Emit, wants: Wants
    ) -> None:
        self._source = settings.name
        self._breaker = settings.breaker
        self._settings = settings.rate_limit or _DEFAULT_LIMITS
        self._limits = shared.limits
        self._keep_limits = shared.keep_limits
        self._clock = clock
        self._emit = emit
        self._wants = wants

    # --- the breaker ---

    def admit(self) -> int:
        """An admission for one attempt; hand it to `judge` or `undecided`.

        Raises:
            CircuitBreakerError: the breaker is open, or its one probe is under way.
        """
        if self._breaker is None:
            return 0
        answer = self._limits.admit()
        self._told_of_breaker(answer.change)
        if answer.number is None:
            raise self._refused(answer)
        return answer.number

    def opened(self) -> CircuitBreakerError | None:
        """The refusal of a breaker that has opened, so that nobody waits for an attempt that may not go."""
        if self._breaker is None:
            return None
        answer = self._limits.admit()
        self._told_of_breaker(answer.change)
        if answer.number is not None:
            self._limits.undecided(answer.number)
            return None
        return self._refused(answer) if answer.state == "open" else None

    def _refused(self, answer: Admission) -> CircuitBreakerError:
        left = answer.seconds_left
        error = CircuitBreakerError(
            f"the circuit breaker of source '{self._source}' is {answer.state}",
            kind="circuit_open",
            retry_after=round(left, 3),
            hint=f"too many requests to it failed; the next attempt is possible in {left:.1f} s",
        )
        error.next_attempt_in = left
        error.opened_at = answer.opened_since
        return error

    def judge(self, admission: int, *, status: int = 0, kind: str | None = None) -> None:
        """Tell the breaker how an attempt ended: with a status, or with a kind of failure."""
        if self._breaker is None:
            return
        if kind is not None:
            if kind in ("network", "timeout") and self._breaker.count_network_errors:
                self._told_of_breaker(self._limits.judge(admission, kind))
            else:
                self._limits.undecided(admission)
        elif status in self._breaker.failure_status_codes:
            self._told_of_breaker(self._limits.judge(admission, f"HTTP {status}"))
        elif status in _BREAKER_NEUTRAL or (300 <= status < 400 and status != 304):
            self._limits.undecided(admission)
        else:
            self._told_of_breaker(self._limits.judge(admission, None))

    def undecided(self, admission: int) -> None:
        """The attempt says nothing about the service: cancelled, or never sent."""
        if self._breaker is not None:
            self._limits.undecided(admission)

    # --- the limits ---

    @property
    def remaining(self) -> int | None:
        """Requests that the API says are left."""
        return self._limits.facts().remaining

    @property
    def max_wait_seconds(self) -> float:
        return self._settings.max_wait_seconds

    def permit_now(self, request: Request) -> int:
        """A ticket, if the request may go at once; else 0."""
        if request.rate_limit is not None:
            return 0
        return self._limits.book(self._clock.monotonic(), 0.0, None).ticket

    async def permit(self, request: Request) -> int:
        """Wait for a slot; the ticket that `learn` wants back.

        Raises:
            RateLimitError: the strategy is `fail`, or the wait would exceed `maxWait`.
        """
        own = request.rate_limit
        endpoint = None if own is None else (request.method, request.template, own)
        most = 0.0 if self._settings.strategy == "fail" else self._settings.max_wait_seconds
        began = now = self._clock.monotonic()
        told = False
        while True:
            at, ticket = self._limits.book(now, max(_SOONEST, most - (now - began)), endpoint)
            wait = at - now
            if wait >= _SOONEST and not told:
                self._tell(RateLimitHit, request, wait)
                told = True
            if not ticket:
                raise self._refusal(wait, at - began)
            if wait < _SOONEST or await self._slept(request, endpoint, at, began):
                break
            now = self._clock.monotonic()
        if told:
            waited = self._clock.monotonic() - began
            self._emit(RateLimitResumed(source=self._source, waited_seconds=waited, endpoint=request.template))
        return ticket

    def learn(self, ticket: int, answer: RawAnswer, retry_after: float | None) -> None:
        """Hear what an answer says about the limits."""
        self._limits.learn(ticket, answer.status, answer.headers, retry_after)

    async def keep(self, seconds: float) -> None:
        """Let a restart know of a wait that the API asked for, also of one that is too long for us."""
        if seconds > _KEPT_SECONDS:
            await self._keep_limits()

    async def sit_out(self, request: Request, seconds: float) -> None:
        """Wait because the API said 429."""
        now = self._clock.monotonic()
        self._tell(RateLimitHit, request, seconds)
        await self._sleep(request, now + seconds, now)
        self._emit(RateLimitResumed(source=self._source, waited_seconds=seconds, endpoint=request.template))

    def too_long(self, wait: float, waited: float = 0.0) -> RateLimitTimeoutError:
        """The error of a wait that would exceed `maxWait`."""
        limit = self._settings.max_wait_seconds
        error = RateLimitTimeoutError(
            f"source '{self._source}' asks to wait {_shown(wait)} s, more than maxWait ({limit:g} s)",
            kind="rate_limit",
            retry_after=round(wait, 3),
            hint="raise maxWait in the source's rateLimit, or run the mission later",
        )
        error.waited, error.max_wait = waited, limit
        error.reset_at = self._clock.now() + timedelta(seconds=wait)
        return error

    def _refusal(self, wait: float, total: float) -> RateLimitError | RateLimitTimeoutError:
        if self._settings.strategy != "fail":
            return self.too_long(wait, total - wait)
        error = RateLimitError(
            f"the rate limit of source '{self._source}' is reached",
            kind="rate_limit",
            retry_after=round(wait, 3),
            hint="the strategy is fail; with pause the request would wait",
        )
        error.reset_at = self._clock.now() + timedelta(seconds=wait)
        return error

    async def _slept(self, request: Request, endpoint: Endpoint | None, at: float, began: float) -> bool:
        """Sleep to a booked slot; False, the slot given back, if the server has held requests further meanwhile."""
        try:
            if at - self._clock.monotonic() > _KEPT_SECONDS:
                await self._keep_limits()
            await self._sleep(request, at, began)
            now = self._clock.monotonic()
            if self._limits.held_until(now) - now < _SOONEST:
                return True
        except BaseException:
            self._limits.give_back(at, endpoint)
            raise
        self._limits.give_back(at, endpoint)
        return False

    async def _sleep(self, request: Request, until: float, began: float) -> None:
        """Sleep to a moment; from `notifyAt` on, say so every 10 s."""
        notice = began + self._settings.notify_at_seconds
        now = self._clock.monotonic()
        while notice < until and self._wants(RateLimitWaiting):
            await self._clock.sleep(max(0.0, notice - now))
            now = self._clock.monotonic()
            self._tell(RateLimitWaiting, request, until - now, elapsed_seconds=now - began)
            notice += _NOTICE_SECONDS
        if until > now:
            await self._clock.sleep(until - now)

    # --- telling ---

    def _tell(self, kind: Any, request: Request, wait: float, **more: float) -> None:
        if self._wants(kind):
            remaining, reset = self._limits.facts()
            self._emit(
                kind(
                    source=self._source,
                    wait_seconds=wait,
                    strategy=self._settings.strategy,
                    endpoint=request.template,
                    remaining=remaining,
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


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds < 1e9 else f"{seconds:.3g}"
