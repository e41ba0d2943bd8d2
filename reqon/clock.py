"""Time: the only module that asks the system what time it is, or waits for it."""

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Protocol

# Also the system's: how generated loops look at the clock without a method call per look.
perf_seconds = time.monotonic


class Clock(Protocol):
    """What the rest of Reqon knows of time."""

    def now(self) -> datetime:
        """The instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back. For durations and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of monotonic time; 0 lets others run once."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM = SystemClock()


def wait_blocking(seconds: float) -> None:
    """Hold this thread for so many seconds. For command-line waits and side threads only."""
    time.sleep(seconds)


def rfc3339(instant: datetime) -> str:
    """The instant as `2026-03-01T08:15:00.412Z`: UTC, milliseconds (rounded down), Z."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"


def parse_rfc3339(text: str) -> datetime:
    """The instant that an RFC 3339 text names, in UTC.

    Raises:
        ValueError: the text is no such instant, or names no offset.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return instant.astimezone(UTC)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_UNIT_SECONDS = {"": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_UNIT_WORDS = {"millisecond": "ms", "sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "day": "d"}
_UNIT_WORDS |= {"week": "w"}


def parse_duration(text: str) -> float:
    """The seconds that a duration of the command line names: `25s`, `30d`, `7 days`, or milliseconds without a unit.

    Raises:
        ValueError: it is none.
    """
    if match := _DURATION.fullmatch(text.strip()):
        word = match[2].lower()
        unit = word if word in _UNIT_SECONDS else _UNIT_WORDS.get(word.removesuffix("s"))
        if unit is not None:
            return float(match[1]) * _UNIT_SECONDS[unit]
    raise ValueError(f"{text!r} is no duration; write 25s, 15m, 2h, 30d, 7 days, or a number of milliseconds")
