"""What all missions know together of one source: its limits and its breaker (spec/runtime.md 6.2).

Decides; never waits. The state lies in one process: where executions run in workers, they ask the one that holds it
(`reqon.http.shared_limits`), so each question is whole: nobody can come between asking for a slot and booking it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from reqon.clock import Clock
from reqon.http.breaker import Breaker, Transition
from reqon.http.messages import BreakerSettings, RateLimitSettings
from reqon.http.rate_limit import RateLimiter

ENDPOINTS = 10_000

# A method and a path template that have a quota of their own.
Endpoint = tuple[str, str, RateLimitSettings]


class Admission(NamedTuple):
    """The breaker's answer: a number for `judge`, None if it refuses; the change that asking made; why it refuses."""

    number: int | None
    change: Transition | None = None
    state: str = "closed"
    seconds_left: float = 0.0
    opened_since: datetime | None = None


class Booking(NamedTuple):
    """When the request may go, in monotonic seconds, and the ticket of its slot; 0 if none was booked."""

    at: float
    ticket: int


class Facts(NamedTuple):
    """What the API said: requests left, and when its window ends."""

    remaining: int | None
    reset_at: datetime | None


class Limits(Protocol):
    """One source's limits and breaker. Times are seconds of the monotonic clock, which processes of a machine share."""

    def admit(self) -> Admission:
        """Ask the breaker for one attempt."""

    def judge(self, admission: int, reason: str | None) -> Transition | None:
        """The attempt succeeded, or failed for a reason."""

    def undecided(self, admission: int) -> None:
        """The attempt says nothing about the service."""

    def book(self, now: float, most_seconds: float, endpoint: Endpoint | None) -> Booking:
        """Book the next slot, unless it is further away than `most_seconds`."""

    def give_back(self, at: float, endpoint: Endpoint | None) -> None:
        """A booked slot was not used."""

    def held_until(self, now: float) -> float:
        """Until when the server holds requests back; `now` if it doesn't."""

    def learn(self, ticket: int, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        """Hear what an answer says about the limits."""

    def facts(self) -> Facts:
        """What the API said last."""


@dataclass(slots=True, eq=False)
class OwnLimits:
    """The state itself."""

    limiter: RateLimiter
    clock: Clock
    breaker: Breaker | None = None
    endpoints: dict[tuple[str, str], RateLimiter] = field(default_factory=dict)

    def use(self, rate_limit: RateLimitSettings | None, breaker: BreakerSettings | None) -> None:
        """Go on under these settings: a mission was loaded, perhaps anew."""
        self.limiter.use(rate_limit)
        if breaker is None:
            self.breaker = None
        elif self.breaker is None:
            self.breaker = Breaker(breaker)
        else:
            self.breaker.settings = breaker

    def admit(self) -> Admission:
        breaker = self.breaker
        if breaker is None:
            return Admission(0)
        now = self.clock.monotonic()
        number, change = breaker.admit(now)
        if number is not None:
            return Admission(number, change)
        left, since = breaker.seconds_left(now), breaker.opened_since(now, self.clock.now())
        return Admission(None, change, breaker.state.value, left, since)

    def judge(self, admission: int, reason: str | None) -> Transition | None:
        if self.breaker is None:
            return None
        if reason is None:
            return self.breaker.succeeded(admission)
        return self.breaker.failed(admission, self.clock.monotonic(), reason)

    def undecided(self, admission: int) -> None:
        if self.breaker is not None:
            self.breaker.undecided(admission)

    def book(self, now: float, most_seconds: float, endpoint: Endpoint | None) -> Booking:
        limiters = self._limiters(endpoint)
        at = now
        for limiter in limiters:
            at = max(at, limiter.next_slot(at))
        if at - now > most_seconds:
            return Booking(at, 0)
        return Booking(at, next(iter([limiter.take(at) for limiter in limiters])))

    def give_back(self, at: float, endpoint: Endpoint | None) -> None:
        for limiter in self._limiters(endpoint):
            limiter.give_back(at)

    def held_until(self, now: float) -> float:
        return self.limiter.held_until(now)

    def learn(self, ticket: int, status: int, headers: Mapping[str, str], retry_after: float | None) -> None:
        now, wall = self.clock.monotonic(), self.clock.now
        self.limiter.learn(ticket, status, headers, now=now, wall=wall, retry_after=retry_after)

    def facts(self) -> Facts:
        return Facts(self.limiter.remaining, self.limiter.reset_at(self.clock.monotonic(), self.clock.now()))

    def _limiters(self, endpoint: Endpoint | None) -> list[RateLimiter]:
        if endpoint is None:
            return [self.limiter]
        method, template, settings = endpoint
        found = self.endpoints.get((method, template))
        if found is None:
            if len(self.endpoints) >= ENDPOINTS:
                self.endpoints.clear()
            found = self.endpoints[method, template] = RateLimiter(settings)
        found.use(settings)
        return [self.limiter, found]
