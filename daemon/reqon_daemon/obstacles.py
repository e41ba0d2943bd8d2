"""What holds up the runs under way: limits, waits between attempts, open breakers. By listening; for `reqon why`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reqon.events import (
    BreakerChanged,
    DataStored,
    Emitted,
    EventBus,
    FetchCompleted,
    FetchRetried,
    MissionEnded,
    PageFetched,
    RateLimitHit,
    RateLimitResumed,
)
from reqon.values import Record

CLOSED = "closed"


@dataclass(slots=True)
class Obstacles:
    """The newest wait of each mission, until something goes on again; the breakers that are not closed."""

    _waits: dict[str, Record] = field(default_factory=dict)
    _breakers: dict[tuple[str, str], Record] = field(default_factory=dict)

    def listen(self, bus: EventBus) -> None:
        """Hear every execution on this bus; none of these events comes for each item."""
        bus.on(RateLimitHit, self._on_limit)
        bus.on(FetchRetried, self._on_retry)
        bus.on(BreakerChanged, self._on_breaker)
        for over in (RateLimitResumed, FetchCompleted, PageFetched, DataStored, MissionEnded):
            bus.on(over, self._on_headway)

    def wait_of(self, mission: str) -> Record | None:
        """What its run waits for: `for`, `source`, `since`, `until`, `reason`."""
        return self._waits.get(mission)

    def breakers_of(self, mission: str) -> list[Record]:
        """Its sources that get no requests for now: `source`, `state`, `since`, `failures`."""
        return [shown for (owner, _), shown in self._breakers.items() if owner == mission]

    def forget(self, missions: Mapping[str, object]) -> None:
        """Keep what is about these missions only."""
        self._waits = {name: wait for name, wait in self._waits.items() if name in missions}
        self._breakers = {key: shown for key, shown in self._breakers.items() if key[0] in missions}

    def _on_limit(self, emitted: Emitted) -> None:
        until = emitted.timestamp + timedelta(seconds=emitted.wait_seconds)
        self._waits[emitted.mission] = _wait("the rate limit", emitted, until, emitted.endpoint)

    def _on_retry(self, emitted: Emitted) -> None:
        until = emitted.timestamp + timedelta(milliseconds=emitted.wait_ms)
        reason = f"{emitted.reason}, attempt {emitted.attempt} of {emitted.max_attempts}"
        self._waits[emitted.mission] = _wait("the next attempt", emitted, until, reason)

    def _on_breaker(self, emitted: Emitted) -> None:
        key = (emitted.mission, emitted.source)
        if emitted.state == CLOSED:
            self._breakers.pop(key, None)
        else:
            shown: Record = {"source": emitted.source, "state": emitted.state}
            self._breakers[key] = {**shown, "since": emitted.timestamp, "failures": emitted.failures}

    def _on_headway(self, emitted: Emitted) -> None:
        self._waits.pop(emitted.mission, None)


def _wait(what: str, emitted: Emitted, until: datetime, reason: str | None) -> Record:
    return {"for": what, "source": emitted.source, "since": emitted.timestamp, "until": until, "reason": reason}
