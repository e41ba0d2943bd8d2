"""A clock that tests turn by hand."""

import asyncio
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A `Clock` whose time passes only in `sleep` and `advance`.

    `slept` holds every wait that was asked for, in order. A sleep ends at once, with the time moved on, after others
    have had their turn; so tasks that sleep together wake in the order of their wake-up times.
    """

    def __init__(self, now: datetime = datetime(2026, 3, 1, 8, 15, tzinfo=UTC), monotonic: float = 1000.0) -> None:
        self.slept: list[float] = []
        self._began = now
        self._offset = timedelta()
        self._monotonic = monotonic
        self._began_at = monotonic
        self._waking: list[float] = []

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self._monotonic - self._began_at) + self._offset

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake_at = self._monotonic + seconds
        self._waking.append(wake_at)
        try:
            await asyncio.sleep(0)
            while self._monotonic < wake_at:
                if wake_at <= min(self._waking):
                    self._monotonic = wake_at
                else:
                    await asyncio.sleep(0)
        finally:
            self._waking.remove(wake_at)

    def advance(self, seconds: float) -> None:
        """Let time pass while nobody sleeps: both clocks move on."""
        self._monotonic += seconds

    def set_wall(self, now: datetime) -> None:
        """Somebody sets the machine's clock: `now()` jumps, monotonic time doesn't."""
        self._offset += now - self.now()
