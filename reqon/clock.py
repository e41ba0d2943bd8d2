"""Time: the only module that asks the system what time it is, or waits for it."""

import asyncio
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
