"""Whether a source may be asked at all: the circuit breaker (spec/runtime.md 7). Decides; never waits."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from reqon.http.messages import BreakerSettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state; `failures` is how many counted then."""

    previous: BreakerState
    state: BreakerState
    failures: int
    reason: str


@dataclass(slots=True)
class Breaker:
    """One source's breaker. Times are seconds of the monotonic clock.

    Each admitted attempt ends in exactly one of `succeeded`, `failed` and `undecided`, with the admission it was given.
    """

    settings: BreakerSettings
    state: BreakerState = BreakerState.CLOSED
    last_failure_at: float | None = None
    _failures: deque[float] = field(default_factory=deque)
    _opened_at: float = 0.0
    _successes: int = 0
    _era: int = 0  # counts changes of state: an answer from before a change says nothing about now
    _probing: bool = False

    @property
    def failures(self) -> int:
        return len(self._failures)

    @property
    def successes(self) -> int:
        """Successful probes in a row, while half open."""
        return self._successes

    def seconds_left(self, now: float) -> float:
        """Until the next request may be a probe; 0 when it may be now."""
        if self.state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._opened_at + self.settings.reset_timeout_seconds - now)

    def status(self, now: float, wall: datetime) -> dict[str, object]:
        """`{state, failures, successes, last_failure_time, next_attempt_time}`, the times as instants."""

        def instant(at: float | None) -> datetime | None:
            return None if at is None else wall + timedelta(seconds=at - now)

        opens = self._opened_at + self.settings.reset_timeout_seconds if self.state is BreakerState.OPEN else None
        return {
            "state": self.state.value,
            "failures": len(self._failures),
            "successes": self._successes,
            "last_failure_time": instant(self.last_failure_at),
            "next_attempt_time": instant(opens),
        }

    def opened_since(self, now: float, wall: datetime) -> datetime | None:
        """Since when it is not closed; None if it is."""
        return None if self.state is BreakerState.CLOSED else wall - timedelta(seconds=now - self._opened_at)

    def admit(self, now: float) -> tuple[int | None, Transition | None]:
        """An admission for one attempt, or None if it is refused; and the change that asking has made."""
        if self.state is BreakerState.CLOSED:
            return self._era, None
        change = None
        if self.state is BreakerState.OPEN:
            if self.seconds_left(now) > 0:
                return None, None
            change = self._become(BreakerState.HALF_OPEN, "reset timeout passed")
            self._successes = 0
            self._probing = False
        if self._probing:
            return None, change
        self._probing = True
        return self._era, change

    def succeeded(self, admission: int) -> Transition | None:
        """The service answered as a living one does."""
        if admission != self._era:
            return None
        if self.state is BreakerState.CLOSED:
            if self._failures:
                self._failures.clear()
            return None
        self._probing = False
        self._successes += 1
        if self._successes < self.settings.success_threshold:
            return None
        change = self._become(BreakerState.CLOSED, "probes succeeded")
        self._failures.clear()
        return change

    def failed(self, admission: int, now: float, reason: str) -> Transition | None:
        """The service failed."""
        if admission != self._era:
            return None
        self.last_failure_at = now
        if self.state is BreakerState.HALF_OPEN:
            self._probing = False
            self._opened_at = now
            return self._become(BreakerState.OPEN, reason)
        failures = self._failures
        failures.append(now)
        while failures[0] <= now - self.settings.failure_window_seconds:
            failures.popleft()
        if len(failures) < self.settings.failure_threshold:
            return None
        self._opened_at = now
        return self._become(BreakerState.OPEN, reason)

    def undecided(self, admission: int) -> None:
        """The attempt was cancelled, or its outcome says nothing about the service."""
        if admission == self._era:
            self._probing = False

    def reset(self) -> Transition | None:
        """Close it by hand."""
        self._failures.clear()
        self._probing = False
        return None if self.state is BreakerState.CLOSED else self._become(BreakerState.CLOSED, "reset")

    def _become(self, state: BreakerState, reason: str) -> Transition:
        previous, self.state = self.state, state
        self._era += 1
        return Transition(previous, state, len(self._failures), reason)
