"""When the next request may go: our quotas and the server's signals (spec/runtime.md 6). Decides; never waits."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from reqon.clock import parse_rfc3339, rfc3339
from reqon.http.messages import RateLimitSettings
from reqon.http.retry import http_date
from reqon.values import Record

_PREFIXES = ("X-RateLimit-", "RateLimit-", "X-Rate-Limit-")
_REMAINING = tuple(p + "Remaining" for p in _PREFIXES)
_LIMIT = tuple(p + "Limit" for p in _PREFIXES)
_RESET = tuple(p + "Reset" for p in _PREFIXES)
_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?")
_PAIR = re.compile(r"(limit|remaining|reset|r|t)\s*=\s*(\d{1,15})", re.IGNORECASE)
_LONGEST_RESET_SECONDS = 86_400.0
_UNKNOWN_RESET_SECONDS = 60.0
_NOTHING = RateLimitSettings(requests_per_minute=0)


class RateLimiter:
    """One source's limits, or one endpoint's. Times are seconds of the monotonic clock.

    `next_slot` says when the next request may go, `take` books that moment, `learn` hears what the server answers.
    Without settings there is no quota of ours, but what the server says holds.
    """

    def __init__(self, settings: RateLimitSettings | None = None) -> None:
        self.settings = settings or _NOTHING
        self.remaining: int | None = None
        self.limit: int | None = None
        self._reset_at: float | None = None
        self._answered_at = 0.0
        self._blocked_until = 0.0
        self._granted = 0
        self._grants: deque[float] = deque()
        self._rate = self.settings.requests_per_minute
        self._raised_at = 0.0

    def use(self, settings: RateLimitSettings | None) -> None:
        """Go on under other settings: a mission was reloaded."""
        settings = settings or _NOTHING
        if settings != self.settings:
            self.settings = settings
            self._rate = settings.requests_per_minute

    # --- asking ---

    def next_slot(self, now: float) -> float:
        """When the next request may go, not before `now`."""
        at = self._held_until(now) if self.remaining is not None or self._blocked_until > now else now
        if self._rate:
            at = max(at, self._quota_slot(now))
        return at

    def held_until(self, now: float) -> float:
        """Until when the server holds requests back; `now` if it doesn't."""
        return self._held_until(now) if self.remaining is not None or self._blocked_until > now else now

    def take(self, at: float) -> int:
        """Book a slot. The number tells `learn` which request an answer belongs to."""
        self._granted += 1
        if self.remaining is not None and (self._reset_at is None or at < self._reset_at):
            self.remaining = max(0, self.remaining - 1)
        if self._rate:
            self._grants.append(at)
        return self._granted

    def give_back(self, at: float) -> None:
        """A booked slot was not used."""
        if self._rate and at in self._grants:
            self._grants.remove(at)

    def _held_until(self, now: float) -> float:
        if self.remaining is not None and self._reset() <= now:
            self.remaining = None
            self._reset_at = None
        at = max(now, self._blocked_until)
        if self.remaining is not None and self.remaining <= 0:
            at = max(at, self._reset())
        return at

    def _reset(self) -> float:
        return self._answered_at + _UNKNOWN_RESET_SECONDS if self._reset_at is None else self._reset_at

    def _quota_slot(self, now: float) -> float:
        rate = self._working_rate(now)
        count = max(1, int(rate))
        window = 60.0 * count / rate
        grants = self._grants
        while len(grants) > count and grants[0] <= now - window:
            grants.popleft()
        if not grants:
            return now
        at = max(now, grants[-1])  # first come, first served
        if self.settings.strategy == "throttle" or self._is_scarce():
            interval = 60.0 / rate if self.settings.strategy == "throttle" else 0.0
            if self.remaining and self._reset_at is not None:
                interval = max(interval, (self._reset_at - now) / self.remaining)
            at = max(at, grants[-1] + interval)
        if self.settings.strategy != "throttle" and len(grants) >= count:
            at = max(at, grants[-count] + window)
        return at

    def _is_scarce(self) -> bool:
        known = self.settings.adaptive and self.limit is not None and self.remaining is not None
        return known and self.remaining < 0.2 * self.limit  # type: ignore[operator]  # both known

    def _working_rate(self, now: float) -> float:
        full = self.settings.requests_per_minute
        while self._rate < full and now - self._raised_at >= 60:
            self._rate = min(full, self._rate + full / 10)
            self._raised_at += 60
        return self._rate

    # --- learning ---

    def learn(
        self,
        ticket: int,
        status: int,
        headers: Mapping[str, str],
        *,
        now: float,
        wall: Callable[[], datetime],
        retry_after: float | None = None,
    ) -> None:
        """Hear an answer. `retry_after` is its Retry-After in seconds, if it has one; `wall` tells the time of day."""
        if status in (429, 503):
            if retry_after is not None:
                self._blocked_until = max(self._blocked_until, now + retry_after)
            if status == 429 and self.settings.adaptive and self._rate:
                self._rate = max(1.0, self._working_rate(now) / 2)
                self._raised_at = now
        remaining = _first(headers, _REMAINING)
        if remaining is not None:
            self._note(ticket, remaining, _first(headers, _LIMIT), _first(headers, _RESET), now=now, wall=wall())
        elif (combined := headers.get("RateLimit")) is not None:
            found = _combined(combined)
            self._note(ticket, found.get("remaining"), found.get("limit"), found.get("reset"), now=now, wall=wall())

    def _note(
        self, ticket: int, remaining: str | None, limit: str | None, reset: str | None, *, now: float, wall: datetime
    ) -> None:
        left = _whole(remaining)
        if left is None:
            return
        seconds = _reset_seconds(reset, wall)
        self._answered_at = now
        self._reset_at = None if seconds is None else now + seconds
        self.remaining = max(0, left - (self._granted - ticket))
        self.limit = _whole(limit)
        adaptive = self.settings.adaptive and self.limit and seconds is not None and seconds <= 60
        if adaptive and self.limit < self._working_rate(now):  # type: ignore[operator]  # known here
            self._rate = max(1.0, float(self.limit or 1))
            self._raised_at = now

    # --- for people and restarts ---

    def reset_at(self, now: float, wall: datetime) -> datetime | None:
        """When the server's window ends, if it said so."""
        return (
            None if self._reset_at is None or self._reset_at <= now else wall + timedelta(seconds=self._reset_at - now)
        )

    def keep(self, now: float, wall: datetime) -> Record | None:
        """What a restart should know: only what holds requests for more than 5 s from now."""
        until = self.held_until(now)
        if until <= now + 5:
            return None
        moment = rfc3339(wall + timedelta(seconds=until - now))
        blocked = self._blocked_until >= until
        return {"blockedUntil": moment if blocked else None, "remaining": self.remaining, "resetAt": moment}

    def restore(self, kept: Record, now: float, wall: datetime) -> None:
        """Take up what an earlier process kept; what has passed, or is no such record, is ignored."""
        blocked = _seconds_until(kept.get("blockedUntil"), wall)
        reset = _seconds_until(kept.get("resetAt"), wall)
        if blocked is not None:
            self._blocked_until = now + blocked
        if reset is not None and kept.get("remaining") == 0:
            self.remaining, self._reset_at, self._answered_at = 0, now + reset, now


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = headers.get(name)
        if value is not None:
            return value
    return None


def _whole(text: str | None) -> int | None:
    # Joined header lines and quota policies ("100, 100;w=60") begin with the number.
    found = _NUMBER.match(text.strip()) if text else None
    return int(float(found[0])) if found else None


def _combined(text: str) -> dict[str, str]:
    """The one-field forms: `limit=…, remaining=…, reset=…` and `"policy";r=…;t=…`; of several policies the tightest."""
    tightest: dict[str, str] = {}
    for policy in text.split('"')[::2] if '"' in text else (text,):
        found = {k.lower(): v for k, v in _PAIR.findall(policy)}
        found = {{"r": "remaining", "t": "reset"}.get(k, k): v for k, v in found.items()}
        known = "remaining" in found
        if known and (not tightest or int(found["remaining"]) < int(tightest["remaining"])):
            tightest = found
    return tightest


def _reset_seconds(text: str | None, wall: datetime) -> float | None:
    """Seconds from now until a reset header's moment; None if it is unreadable, past or more than a day ahead."""
    if text is None:
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number > 1e12:
            number = number / 1000 - wall.timestamp()
        elif number > 1e9:
            number -= wall.timestamp()
        return number if 0 <= number <= _LONGEST_RESET_SECONDS else None
    return _seconds_until(text, wall)


def _seconds_until(text: object, wall: datetime) -> float | None:
    if not isinstance(text, str):
        return None
    moment = http_date(text)
    if moment is None:
        try:
            moment = parse_rfc3339(text)
        except ValueError:
            return None
    seconds = (moment - wall).total_seconds()
    return seconds if 0 < seconds <= _LONGEST_RESET_SECONDS else None
