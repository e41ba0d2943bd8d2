"""Once a minute what nobody tells us of: size and space of the state, others' counts; old records go hourly."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from reqon.errors import ReqonError
from reqon.runner import Runner
from reqon_daemon.catalog import Catalog
from reqon_daemon.happenings import Happenings
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

    async def run(self) -> None:
        """Look around until it is cancelled."""
        clock = self.runner.clock
        swept = clock.monotonic()
        while True:
            await self.look()
            if clock.monotonic() - swept >= SWEEP_SECONDS:
                swept = clock.monotonic()
                await self.sweep()
            await clock.sleep(EVERY_SECONDS)

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

    async def sweep(self) -> None:
        """Delete records that are older than their mission keeps them. Not after a clock jump: ages lie then."""
        if self.scheduler.clock_jumped:
            return
        for loaded in tuple(self.catalog.missions.values()):
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
