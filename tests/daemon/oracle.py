"""Cron by brute force: every minute of UTC, one after the other, judged by what the local clock shows."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from reqon.lang.cron import CronFields

MINUTE = timedelta(minutes=1)
Wall = tuple[datetime, datetime]


def fire_times(fields: CronFields, zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """All fire times in [begin, end), by the rules of reliability.md 5 taken word for word."""
    return list(_repeating(fields, zone, begin, end) if fields.every_match else _fixed(fields, zone, begin, end))


def _repeating(fields: CronFields, zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    at = begin
    while at < end:
        if _named(fields, at.astimezone(zone)):
            yield at
        at += MINUTE


def _fixed(fields: CronFields, zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Each local minute once. `shown` is the first minute that the local clock has not shown yet."""
    at = begin - timedelta(days=2)
    shown = at.astimezone(zone).replace(tzinfo=None)
    while at < end:
        local = at.astimezone(zone).replace(tzinfo=None)
        due = False
        while shown <= local:  # more than one minute after a gap: those inside it count now, together
            due = due or _named(fields, shown)
            shown += MINUTE
        if due and at >= begin:
            yield at
        at += MINUTE


def _named(fields: CronFields, local: datetime) -> bool:
    return local.minute in fields.minutes and local.hour in fields.hours and fields.runs_on(local.date())


def change_days(zone: ZoneInfo, first: int, last: int) -> list[datetime]:
    """The UTC midnights of the days in which the zone's offset changes."""
    found = []
    at = datetime(first, 1, 1, tzinfo=UTC)
    while at.year <= last:
        following = at + timedelta(days=1)
        if at.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            found.append(at)
        at = following
    return found
