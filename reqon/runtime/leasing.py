"""A mission's lease in a state store that machines share: renewed while it runs, given back at its end.

Within one state directory the mission's lock decides who runs it; the lease says so to all other machines, and runs out
by itself when ours is gone (spec/reliability.md 2).
"""

import asyncio
import logging
from collections.abc import Coroutine
from threading import Lock
from typing import Any, TypeVar

from reqon.clock import SYSTEM
from reqon.errors import ReqonError
from reqon.state.backend import StateBackend
from reqon.state.directory import LeaseLostError

T = TypeVar("T")
log = logging.getLogger("reqon")

_RENEWALS = 6  # in the time that a lease lasts: several may fail before it is lost


class MissionLease:
    """The lease of one mission for one owner. Several runs of it in one process share this object."""

    def __init__(self, backend: StateBackend, mission: str, owner: str, *, seconds: float) -> None:
        self._backend = backend
        self._mission = mission
        self._owner = owner
        self._seconds = seconds
        self._calling = Lock()  # so that no late renewal follows the end
        self._over = False
        self._good_until = 0.0

    async def take(self) -> bool:
        """Take it; False while another machine has it.

        Raises:
            StateError: the store cannot be asked.
        """
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> bool:
        with self._calling:
            if self._over:
                return True
            until = SYSTEM.monotonic() + self._seconds  # ours from before the call on: theirs cannot end sooner
            taken = self._backend.lease(self._mission, self._owner, self._seconds)
            if taken:
                self._good_until = until
            return taken

    async def give_back(self) -> None:
        """Let others run it at once."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._calling:
            if not self._over:
                self._over = True
                try:
                    self._backend.lease(self._mission, self._owner, 0.0)
                except ReqonError as error:
                    log.warning("the lease of %s could not be given back and ends by itself: %s", self._mission, error)

    async def hold(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` answers, the lease renewed beside it.

        Raises:
            LeaseLostError: it could not be renewed; `work` was cancelled before anybody else can have begun.
        """
        answer: T | ReqonError
        try:
            async with asyncio.TaskGroup() as beside:
                renewing = beside.create_task(self._renew())
                try:
                    answer = await work
                except ReqonError as error:
                    answer = error  # a group would wrap it
                renewing.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if isinstance(answer, ReqonError):
            raise answer
        return answer

    async def _renew(self) -> None:
        while True:
            await SYSTEM.sleep(self._seconds / _RENEWALS)
            try:
                taken = await asyncio.to_thread(self._ask)
            except ReqonError as error:
                # The others go by the store's own clock: we stop a renewal's time before they may begin.
                if SYSTEM.monotonic() < self._good_until - self._seconds / _RENEWALS:
                    log.warning("the lease of %s could not be renewed: %s", self._mission, error)
                    continue
                raise self._lost(f"could not be renewed: {error.message}") from error
            if not taken:
                raise self._lost("went to another machine")

    def _lost(self, reason: str) -> LeaseLostError:
        return LeaseLostError(
            f"the lease of mission '{self._mission}' {reason}; this run was stopped",
            hint="where the mission runs now, it goes on from the last checkpoint",
        )
