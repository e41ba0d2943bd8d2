"""Whose turn it is to run a mission: one process at a time, and one machine where they share a state store."""

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from reqon.errors import ReqonError
from reqon.files import Lock
from reqon.running.shared import Shared
from reqon.runtime.leasing import MissionLease
from reqon.runtime.plan import Plan

log = logging.getLogger("reqon")

LOCK_POLL_SECONDS = 0.2


class AlreadyRunningError(ReqonError):
    """The mission is running, here or in another process, and does not run twice at once."""

    slug = "already-running"
    kind = "config"
    exit_code = 0


# The missions' locks that this process holds, whichever of its runners took them. Process numbers do not tell: in
# another container somebody else may have ours.
_ours: set[Path] = set()


@dataclass(slots=True)
class _Held:
    """A mission's lock, and how many runs of this process share it."""

    lock: Lock
    lease: MissionLease | None
    runs: int = 0

    def __post_init__(self) -> None:
        _ours.add(self.lock.path.absolute())

    def release(self) -> None:
        _ours.discard(self.lock.path.absolute())
        self.lock.release()


class Turns:
    """The missions that are ours to run now. Within this process the dispatcher decides about overlap."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._held: dict[str, _Held] = {}

    async def take(self, plan: Plan) -> MissionLease | None:
        """Have the mission, until `give_back`; the lease that keeps it ours, where machines share its state store.

        Raises:
            AlreadyRunningError: somebody has it, and the mission does not wait.
        """
        held = self._held.get(plan.name)
        if held is None:
            lock = self._shared.directory.mission_lock(plan.name)
            await self._wait_for(plan, lambda: lock.take(note=str(os.getpid())), lambda: _elsewhere(lock))
            try:
                lease = await self._take_lease(plan)
            except BaseException:
                lock.release()
                raise
            held = self._held.setdefault(plan.name, _Held(lock, lease))
        held.runs += 1
        return held.lease

    async def _take_lease(self, plan: Plan) -> MissionLease | None:
        """Where machines share the state store, one of them at a time runs a mission."""
        backend = self._shared.state_of(plan) if plan.enable_state else None
        if backend is None or not backend.leases:
            return None
        seconds = self._shared.settings.lease_seconds
        lease = MissionLease(backend, plan.name, self._shared.directory.named(), seconds=seconds)
        await self._wait_for(plan, lease.take, lambda: "on another machine")
        return lease

    async def _wait_for(self, plan: Plan, take: Callable[[], bool | Awaitable[bool]], where: Callable[[], str]) -> None:
        """Return when `take` took it.

        Raises:
            AlreadyRunningError: somebody has it, and the mission does not wait.
        """
        told = False
        while True:
            taken = take()
            if taken if isinstance(taken, bool) else await taken:
                return
            if plan.option("skipIfRunning", True) is not False:
                raise AlreadyRunningError(
                    f"mission '{plan.name}' is running {where()}: this run is skipped",
                    hint="with skipIfRunning: false on the mission it would wait",
                )
            if not told:
                log.info("%s runs %s: waiting for it to end", plan.name, where())
                told = True
            await self._shared.clock.sleep(LOCK_POLL_SECONDS)

    async def give_back(self, plan: Plan) -> None:
        held = self._held[plan.name]
        held.runs -= 1
        if not held.runs:
            del self._held[plan.name]
            try:
                if held.lease is not None:
                    await held.lease.give_back()
            finally:
                held.release()


def _elsewhere(lock: Lock) -> str:
    holder = lock.note()
    if lock.path.absolute() in _ours:
        return "already, in this process"
    return "in another process" + (f" (pid {holder})" if holder else "")
