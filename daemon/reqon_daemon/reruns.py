"""Reruns of failed scheduled runs: planned with backoff, kept in the ledger, timed by monotonic time (daemon.md 2)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from reqon.clock import Clock
from reqon.http.retry import RetryPolicy
from reqon_daemon.ledger import Ledger, PendingRetry


@dataclass(slots=True)
class _Waiting:
    """A planned rerun and the monotonic moment at which it is due."""

    retry: PendingRetry
    moment: float


@dataclass(slots=True)
class Reruns:
    """At most one rerun waits for a mission. Decides; never waits, and starts nothing."""

    ledger: Ledger
    clock: Clock
    random: Callable[[], float]
    _waiting: dict[str, _Waiting] = field(default_factory=dict)

    def of(self, mission: str) -> PendingRetry | None:
        """The rerun that waits for its time."""
        waiting = self._waiting.get(mission)
        return waiting.retry if waiting else None

    def plan(self, mission: str, policy: RetryPolicy, last: PendingRetry) -> PendingRetry:
        """Plan the run after `last`, which describes the attempt that failed; it is noted, not committed."""
        attempt = last.attempt + 1
        delay = policy.delay_before(attempt, self.random)
        retry = PendingRetry(
            execution_id=last.execution_id,
            attempt=attempt,
            due=self.clock.now() + timedelta(seconds=delay),
            delay_seconds=delay,
            slot=last.slot,
            definition_hash=last.definition_hash,
        )
        self._waiting[mission] = _Waiting(retry, self.clock.monotonic() + delay)
        self.ledger.update(mission, retry=retry)
        return retry

    def restore(self, mission: str) -> None:
        """Take up the rerun that a former daemon had planned. It waits its whole delay at most."""
        standing = self.ledger.standing(mission)
        if standing and standing.retry and mission not in self._waiting:
            left = (standing.retry.due - self.clock.now()).total_seconds()
            wait = min(max(left, 0.0), standing.retry.delay_seconds)
            self._waiting[mission] = _Waiting(standing.retry, self.clock.monotonic() + wait)

    def hasten(self, mission: str) -> PendingRetry | None:
        """Make a waiting rerun due now; a slot that comes meanwhile need not start a second run."""
        waiting = self._waiting.get(mission)
        if waiting is None:
            return None
        waiting.moment = self.clock.monotonic()
        return waiting.retry

    def drop(self, mission: str) -> PendingRetry | None:
        """Forget a waiting rerun: it starts, or nothing is left to repeat. Noted, not committed."""
        waiting = self._waiting.pop(mission, None)
        if waiting is None:
            return None
        self.ledger.update(mission, retry=None)
        return waiting.retry

    def due(self) -> list[str]:
        """Missions whose rerun's time has come."""
        moment = self.clock.monotonic()
        return [mission for mission, waiting in self._waiting.items() if waiting.moment <= moment]
