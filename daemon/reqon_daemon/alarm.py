"""What wakes the scheduler: the only importer of APScheduler, which does nothing but ring.

Fire times are ours, and so is every decision: see slots.py and schedule.py.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from reqon.clock import SYSTEM, Clock

LONGEST_WAIT_SECONDS = 1.0
SHORTEST_WAIT_SECONDS = 0.05


class Alarm(Protocol):
    """Waits for the next due time, but never for more than a second at a time."""

    async def wait(self, until: datetime | None) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class ClockAlarm:
    """Sleeps on a clock. What tests use, and whoever has no APScheduler."""

    clock: Clock = SYSTEM

    async def wait(self, until: datetime | None) -> None:
        left = LONGEST_WAIT_SECONDS if until is None else (until - self.clock.now()).total_seconds()
        await self.clock.sleep(min(max(left, 0.0), LONGEST_WAIT_SECONDS))

    def close(self) -> None: ...


class TimerAlarm:
    """APScheduler as a timer: one job at the next due time, which rings and returns.

    A job that does more would be cancelled by its shutdown, and a plain function would run in a thread. After a clock
    that was set forward it sleeps on until it is woken, so it is, every second.
    """

    def __init__(self, longest_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        """Wake at least every `longest_seconds`, and at least every second."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: PLC0415  # 100 ms that only a daemon needs

        self._bell = asyncio.Event()
        self._longest = min(max(longest_seconds, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        self._until: datetime | None = None
        self._scheduler: Any = AsyncIOScheduler(timezone=UTC)
        self._scheduler.start()

    async def wait(self, until: datetime | None) -> None:
        self._bell.clear()
        if until is not None and until != self._until:
            # misfire_grace_time: by default a job that is one second late is dropped.
            self._scheduler.add_job(
                self._ring, "date", run_date=until, id="due", replace_existing=True, misfire_grace_time=None
            )
        self._until = until
        try:
            async with asyncio.timeout(self._longest):
                await self._bell.wait()
        except TimeoutError:
            self._scheduler.wakeup()

    async def _ring(self) -> None:
        self._until = None
        self._bell.set()

    def close(self) -> None:
        self._scheduler.shutdown(wait=False)
