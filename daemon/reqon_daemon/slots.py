"""When a mission is due: fire times of `every`, `cron` and `at`. Pure arithmetic in UTC (spec/reliability.md 5).

Cron goes by local time as cronie does: with `*` first in minute or hour at every instant that matches. Otherwise each
local time fires once: those that the clocks skip together, right after the gap; those shown twice in the first pass.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Protocol

from reqon_daemon.zones import Zone

COUNT_LIMIT = 1000
_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
# 29 February on a given weekday comes after 40 years at the latest: 2100 is no leap year.
_NEVER_DAYS = 41 * 366
_SEEN_DAYS = 5 * 366  # a leap year is among them
_LONGEST_SHIFT = 2 * _DAY


class Rule(Protocol):
    """Due times in whole seconds since 1970."""

    def next_after(self, at: int) -> int | None:
        """The first due time later than `at`."""

    def latest_until(self, at: int, since: int) -> int | None:
        """The last due time in (`since`, `at`]."""

    def count(self, since: int, until: int, limit: int) -> int:
        """How many are in (`since`, `until`], up to `limit`."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many seconds from an anchor, which is the first due time. No drift, no local time."""

    seconds: int
    anchor: int = 0

    def next_after(self, at: int) -> int:
        return self.anchor + max(0, (at - self.anchor) // self.seconds + 1) * self.seconds

    def latest_until(self, at: int, since: int) -> int | None:
        latest = self.anchor + (at - self.anchor) // self.seconds * self.seconds
        return latest if latest > since and latest >= self.anchor else None

    def count(self, since: int, until: int, limit: int) -> int:
        latest = self.latest_until(until, since)
        return 0 if latest is None else min(limit, (latest - self.next_after(since)) // self.seconds + 1)


@dataclass(frozen=True, slots=True)
class Once:
    """One instant."""

    at: int

    def next_after(self, at: int) -> int | None:
        return self.at if at < self.at else None

    def latest_until(self, at: int, since: int) -> int | None:
        return self.at if since < self.at <= at else None

    def count(self, since: int, until: int, limit: int) -> int:
        return int(since < self.at <= until and limit > 0)


class LocalTimes:
    """The local times that cron fields name, as seconds since 1970 by the local clock."""

    __slots__ = ("_days", "_months", "_times", "_weekdays")

    def __init__(
        self,
        minutes: Collection[int],
        hours: Collection[int],
        days: Collection[int],
        months: Collection[int],
        weekdays: Collection[int],
    ) -> None:
        self._times = [h * 3600 + m * 60 for h in sorted(set(hours)) for m in sorted(set(minutes))]
        self._days = frozenset(days)
        self._months = frozenset(months)
        self._weekdays = frozenset(d % 7 for d in weekdays)

    def first_from(self, local: int) -> int | None:
        """The first one at or after `local`; None if there is none in 41 years."""
        day, second = divmod(local, _DAY)
        if self._matches(day):
            place = bisect_left(self._times, second)
            if place < len(self._times):
                return day * _DAY + self._times[place]
        found = self._day_from(day + 1, 1)
        return None if found is None else found * _DAY + self._times[0]

    def last_until(self, local: int) -> int | None:
        """The last one at or before `local`; None if there is none in 41 years."""
        day, second = divmod(local, _DAY)
        if self._matches(day):
            place = bisect_right(self._times, second)
            if place:
                return day * _DAY + self._times[place - 1]
        found = self._day_from(day - 1, -1)
        return None if found is None else found * _DAY + self._times[-1]

    def longest_gap(self, day: int) -> int | None:
        """The most seconds between two of them, by the local clock, seen from a day since 1970 on; None: there is one.

        Five years show them all. Clocks that are changed make one an hour longer, which nobody asks for here.
        """
        longest = max((after - before for before, after in pairwise(self._times)), default=0)
        days = _widest(day, self._days, self._months, self._weekdays)
        return max(longest, days * _DAY + self._times[0] - self._times[-1]) if days else longest or None

    def _matches(self, day: int) -> bool:
        if (day + _EPOCH) % 7 not in self._weekdays:  # a proleptic ordinal divisible by seven is a Sunday
            return False
        shown = date.fromordinal(day + _EPOCH)
        return shown.day in self._days and shown.month in self._months

    def _day_from(self, day: int, step: int) -> int | None:
        return next((d for d in range(day, day + step * _NEVER_DAYS, step) if self._matches(d)), None)


@lru_cache(maxsize=1024)
def _widest(first: int, days: frozenset[int], months: frozenset[int], weekdays: frozenset[int]) -> int | None:
    """The most days between two that match, in the five years from `first` on, or at least between the first two."""
    widest, before = None, None
    for day in range(first, first + _NEVER_DAYS):
        shown = date.fromordinal(day + _EPOCH)
        if shown.day not in days or shown.month not in months or (day + _EPOCH) % 7 not in weekdays:
            continue
        if before is not None:
            widest = max(widest or 0, day - before)
            if day - first > _SEEN_DAYS:
                break
        before = day
    return widest


@dataclass(frozen=True, slots=True)
class Cron:
    """Local times of a zone. `repeats`: `*` stands first in minute or hour, so every instant that matches counts."""

    times: LocalTimes
    zone: Zone
    repeats: bool

    def next_after(self, at: int) -> int | None:
        low = at + 1
        while True:
            offset = self.zone.offset(low)
            floor = low + offset
            if not self.repeats:
                change = self.zone.change_before(low, low - _LONGEST_SHIFT)
                if change is not None:
                    shown_until = change + self.zone.offset(change - 1)  # local time when the clocks were changed
                    if change == low and self._any(shown_until, floor):
                        return low
                    floor = max(floor, shown_until)
            local = self.times.first_from(floor)
            if local is None:
                return None
            change = self.zone.change_after(low, local - offset)
            if change is None:
                return local - offset
            low = change

    def latest_until(self, at: int, since: int) -> int | None:
        high = at
        while high > since:
            offset = self.zone.offset(high)
            local = self.times.last_until(high + offset)
            due = since if local is None else local - offset
            change = self.zone.change_before(high, max(due, since) - _LONGEST_SHIFT)
            if change is None or (change <= due and (self.repeats or due + offset >= self._shown_until(change))):
                return due if due > since else None
            if change <= since:
                return None
            if not self.repeats and self._any(self._shown_until(change), change + offset):
                return change
            high = change - 1
        return None

    def count(self, since: int, until: int, limit: int) -> int:
        counted, at = 0, since
        while counted < limit:
            due = self.next_after(at)
            if due is None or due > until:
                break
            counted, at = counted + 1, due
        return counted

    def _shown_until(self, change: int) -> int:
        return change + self.zone.offset(change - 1)

    def _any(self, low: int, high: int) -> bool:
        """Whether a local time in [`low`, `high`) is named."""
        first = self.times.first_from(low) if low < high else None
        return first is not None and first < high


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Due times of one mission. `text` is the clause as people read it: `every 15 minutes`, `cron "0 9 * * 1-5"`.

    An `every` counts from its anchor: take `anchored` before anything is asked of it.
    """

    rule: Every | Cron | Once
    text: str
    zone: Zone
    jitter: timedelta = timedelta(0)

    @property
    def signature(self) -> str:
        """Equal for schedules that mean the same; what the ledger keeps to see an edit."""
        zone = "" if isinstance(self.rule, Every) else f" {self.zone.name}"
        return f"{self.text}{zone} +{self.jitter / timedelta(milliseconds=1):.0f}ms"

    def anchored(self, first: datetime) -> "Schedule":
        """The same schedule with its first due time, jitter not counted, at `first`; only `every` has one."""
        if not isinstance(self.rule, Every):
            return self
        return replace(self, rule=Every(self.rule.seconds, _seconds(first)))

    @property
    def interval(self) -> timedelta | None:
        """The time between two due times of an `every`."""
        return timedelta(seconds=self.rule.seconds) if isinstance(self.rule, Every) else None

    @property
    def anchor(self) -> datetime | None:
        """The first due time of an `every`, jitter not counted."""
        return datetime.fromtimestamp(self.rule.anchor, UTC) if isinstance(self.rule, Every) else None

    @property
    def once(self) -> bool:
        """Whether there is but one due time."""
        return isinstance(self.rule, Once)

    def next_after(self, instant: datetime) -> datetime | None:
        """The first due time later than `instant`; None if there is none any more."""
        return self._instant(self.rule.next_after(_seconds(instant - self.jitter)))

    def latest_between(self, after: datetime, until: datetime) -> datetime | None:
        """The newest due time in (`after`, `until`], computed, however many there are."""
        return self._instant(self.rule.latest_until(_seconds(until - self.jitter), _seconds(after - self.jitter)))

    def count_between(self, after: datetime, until: datetime, limit: int = COUNT_LIMIT) -> int:
        """How many due times are in (`after`, `until`], up to `limit`."""
        return self.rule.count(_seconds(after - self.jitter), _seconds(until - self.jitter), limit)

    def longest_gap(self, now: datetime) -> timedelta | None:
        """The longest time between two due times that follow each other, from now on; None: there is one at most."""
        if isinstance(self.rule, Every):
            return self.interval
        if isinstance(self.rule, Once):
            return None
        seconds = self.rule.times.longest_gap(_seconds(now) // _DAY)
        return None if seconds is None else timedelta(seconds=seconds)

    def gap_after(self, due: datetime) -> timedelta | None:
        """The time from a due time to the next one."""
        following = self.next_after(due)
        return None if following is None else following - due

    def _instant(self, due: int | None) -> datetime | None:
        return None if due is None else datetime.fromtimestamp(due, UTC) + self.jitter


def jitter_of(mission: str, spread: timedelta) -> timedelta:
    """A mission's share of a spread: at least 0, below `spread`, whole milliseconds, always the same for a name."""
    whole = int(spread / timedelta(milliseconds=1))
    number = int.from_bytes(sha256(mission.encode()).digest()[:8], "big")
    return timedelta(milliseconds=number % whole if whole > 0 else 0)


_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_UTC_SUFFIX = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)


def at_rule(text: str, zone: Zone) -> Cron | Once:
    """What `at "…"` means: `HH:MM` daily by the zone's clock, or one instant; one without offset is of the zone.

    Raises:
        ValueError: neither.
    """
    text = text.strip()
    if daily := _TIME_OF_DAY.fullmatch(text):
        times = LocalTimes({int(daily[2])}, {int(daily[1])}, range(1, 32), range(1, 13), range(7))
        return Cron(times, zone, repeats=False)
    bare = _UTC_SUFFIX.sub("", text)
    shown = datetime.fromisoformat(bare)
    if bare != text:
        if shown.tzinfo is not None:
            raise ValueError(f"'{text}' names two offsets")
        shown = shown.replace(tzinfo=UTC)
    return Once(_seconds(shown if shown.tzinfo is not None else zone.instant_of(shown)))


def _seconds(instant: datetime) -> int:
    """Whole seconds since 1970, rounded down: due times are whole, so nothing is lost."""
    return int((instant - _START) // timedelta(seconds=1))


_START = datetime(1970, 1, 1, tzinfo=UTC)
