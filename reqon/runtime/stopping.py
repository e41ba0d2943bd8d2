"""Being told to stop: loops end after their current item, whoever sleeps is woken, and where it was is saved."""

import asyncio
from datetime import datetime

from reqon.clock import Clock


class StopRun(Exception):  # noqa: N818  # a signal, not an error: nothing of the mission may catch it
    """The run was told to stop and is at a place where it can."""


class StopSignal:
    """One for a process's runs. `after_item`: loops and page loops end as soon as what they do is done."""

    def __init__(self) -> None:
        self.after_item = False
        self._waking: asyncio.Event | None = None

    @property
    def waking(self) -> bool:
        return self._waking is not None and self._waking.is_set()

    def wake(self) -> None:
        """Whoever waits for a retry, a limit or an event gives up waiting and saves itself."""
        self._event().set()

    def request(self) -> None:
        """Stop after the current item; wake sleepers."""
        self.after_item = True
        self.wake()

    async def wait(self) -> None:
        await self._event().wait()

    def _event(self) -> asyncio.Event:
        if self._waking is None:
            self._waking = asyncio.Event()
        return self._waking


class RunClock:
    """A clock whose sleep ends with `StopRun` when the process is told to stop."""

    def __init__(self, clock: Clock, stop: StopSignal) -> None:
        self._clock = clock
        self._stop = stop

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await self._clock.sleep(0)
            return
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeping, waking):
                task.cancel()
            await asyncio.gather(sleeping, waking, return_exceptions=True)
        if self._stop.waking:
            raise StopRun
