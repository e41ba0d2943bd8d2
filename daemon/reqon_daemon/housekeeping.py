"""Once a minute what nobody tells us of: the state's size and space, others' counts, old records of what ran."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from reqon.errors import ReqonError
from reqon.runner import Runner
from reqon_daemon.catalog import Catalog
from reqon_daemon.happenings import Happenings, RunEnded, RunOutcome
from reqon_daemon.health import Health
from reqon_daemon.metrics import Metrics
from reqon_daemon.plans import plan_of
from reqon_daemon.roster import Roster
from reqon_daemon.schedule import Scheduler

EVERY_SECONDS = 60.0
SWEEP_SECONDS = 3600.0
LOW_BYTES = 100 * 1024 * 1024
LOW_SHARE = 0.02

log = structlog.get_logger(__name__)
_CANNOT_WRITE = "cannot write"  # how errors of the state directory and of stores in it begin, in workers too


@dataclass(slots=True, kw_only=True)
class Housekeeping:
    """A task of the daemon."""

    runner: Runner
    catalog: Catalog
    roster: Roster
    scheduler: Scheduler
    metrics: Metrics
    health: Health
    happenings: Happenings
    _ended: dict[str, None] = field(default_factory=dict)  # the missions that ran since they were swept
    _write_errors: int = 0  # those of which the daemon's condition tells, or told

    async def run(self) -> None:
        """Look around until it is cancelled."""
        clock = self.runner.clock
        swept = clock.monotonic()
        self.happenings.on(RunEnded, self._run_ended)
        while True:
            await self.look()
            if clock.monotonic() - swept >= SWEEP_SECONDS:
                swept = clock.monotonic()
                await self.sweep(tuple(self.catalog.missions))
            elif self._ended:
                await self.sweep(tuple(self._ended))
            await clock.sleep(EVERY_SECONDS)

    def _run_ended(self, happening: RunEnded) -> None:
        """A disk that refused what a run wrote is the daemon's trouble, until a run has been written down again."""
        self._ended[happening.mission] = None
        errors = self.runner.directory.write_errors
        refused = errors > self._write_errors or (happening.error or "").startswith(_CANNOT_WRITE)
        self._write_errors = errors
        if refused:
            self.health.concern("writes", (f"what {happening.mission} did could not be written down: see the log",))
        elif happening.outcome is RunOutcome.SUCCESS:
            self.health.concern("writes")

    async def look(self) -> None:
        """Measure the state directory, take over counts of faults."""
        directory = self.runner.directory
        try:
            size, low = await asyncio.to_thread(disk_use, directory.path)
        except OSError as error:
            self.health.concern("disk", (f"the state directory cannot be read: {error.strerror}",))
        else:
            self.metrics.state_bytes.set(size)
            self.health.concern("disk", ("the disk of the state directory is nearly full",) if low else ())
        self.metrics.faults(
            internal=self.runner.bus.failures + self.happenings.failures,
            state_writes=directory.write_errors,
            quarantined=directory.quarantined,
        )
        self.roster.count()

    async def sweep(self, missions: Sequence[str]) -> None:
        """Delete records that are older than their missions keep them. Not after a clock jump: ages lie then."""
        self._ended.clear()
        for loaded in filter(None, map(self.catalog.get, missions)):
            if self.scheduler.clock_jumped:
                return
            try:
                await asyncio.to_thread(self.runner.sweep, plan_of(loaded))
            except (OSError, ReqonError) as error:
                problem = "old records could not be removed"
                log.error(problem, mission=loaded.name, reason=str(error))  # noqa: TRY400  # the disk's fault
        try:
            await asyncio.to_thread(self.runner.backend.forget_logs)
        except (OSError, ReqonError) as error:
            log.warning("old log lines could not be removed", reason=str(error))


def disk_use(directory: Path) -> tuple[int, bool]:
    """Bytes below the directory, and whether its disk is nearly full."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += (Path(folder) / name).lstat().st_size
            except OSError:
                continue  # gone since it was listed
    usage = shutil.disk_usage(directory)
    return size, usage.free < min(LOW_BYTES, usage.total * LOW_SHARE)
