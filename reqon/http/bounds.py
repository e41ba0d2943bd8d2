"""Bounds around an exchange: how many at once, and until when. As asyncio's own, for a fifth of the cost."""

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType

_TICK_SECONDS = 0.1


class Slots:
    """A semaphore whose free slots are taken without a turn of the event loop; first come, first served."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        return False

    async def take(self) -> None:
        """Wait for a slot."""
        if self.take_now():
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()  # it was handed over while we were being cancelled
            else:
                with suppress(ValueError):  # `give` may have passed it over already
                    self._waiting.remove(place)
            raise

    def give(self) -> None:
        """Hand a slot on."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)  # the slot changes hands without becoming free
                return
        self._free += 1


class Deadlines:
    """`asyncio.timeout` for many at once: one timer of the loop looks after all, ten times a second.

    A deadline is so up to 0.1 s late, and one below a second is left to asyncio.
    """

    def __init__(self) -> None:
        self._active: set[_Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> "_Deadline | asyncio.Timeout":
        """Around the awaited work: cancels it after so many seconds, and makes a TimeoutError of that."""
        return asyncio.timeout(seconds) if seconds < 1 else _Deadline(self, seconds)

    def _watch(self, deadline: "_Deadline") -> None:
        self._active.add(deadline)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in self._active:
            if deadline.at <= now and not deadline.passed:
                deadline.passed = True
                deadline.task.cancel()
        self._timer = loop.call_later(_TICK_SECONDS, self._look) if self._active else None

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Deadline:
    __slots__ = ("_cancelling", "_owner", "_seconds", "at", "passed", "task")

    def __init__(self, owner: Deadlines, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds
        self.passed = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._cancelling = task.cancelling()
        self.at = asyncio.get_running_loop().time() + self._seconds
        self._owner._watch(self)  # noqa: SLF001  # two halves of one thing

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner._active.discard(self)  # noqa: SLF001
        # As asyncio.timeout does: a cancellation from elsewhere that arrives together with ours wins.
        if self.passed and self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
