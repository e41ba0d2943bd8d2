"""A process with a scheduler, a dispatcher and one mission of a second's interval whose runs leave a file each.

Started as `python -m tests.support.ticking STATE RUNS`, to be killed at any moment.
"""

import asyncio
import os
import sys
from datetime import datetime
from pathlib import Path

from reqon.clock import SYSTEM, rfc3339
from reqon.files import create_exclusive, make_directory
from reqon.runtime.request import RunRequest
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon_daemon.alarm import TimerAlarm
from reqon_daemon.catalog import Plan
from reqon_daemon.dispatcher import Dispatcher
from reqon_daemon.ledger import Ledger
from reqon_daemon.schedule import Scheduler
from tests.support.timetable import every, mission


class Records:
    """Runs that were begun, by due time: a file each, which a second run of a slot would find taken."""

    def __init__(self, folder: Path) -> None:
        make_directory(folder)
        self.folder = folder

    async def run(self, plan: Plan, request: RunRequest) -> ExecutionRecord:
        assert request.scheduled_for is not None
        if not create_exclusive(self.path(request.scheduled_for)):
            create_exclusive(self.folder / f"twice-{rfc3339(request.scheduled_for)}")
        await asyncio.sleep(0.02)
        return self.record(plan.name, request.scheduled_for)

    async def find(self, name: str, due: datetime) -> ExecutionRecord | None:
        return self.record(name, due) if self.path(due).exists() else None

    def path(self, due: datetime) -> Path:
        return self.folder / rfc3339(due)

    def record(self, name: str, due: datetime) -> ExecutionRecord:
        return ExecutionRecord(
            execution_id=f"exec_{rfc3339(due)}",
            mission=name,
            started_at=SYSTEM.now(),
            status=ExecutionStatus.COMPLETED,
            scheduled_for=due,
        )


async def main(state: Path, runs: Path) -> None:
    records = Records(runs)
    ledger = Ledger(StateDirectory(state))
    ledger.open()
    missions = {"M": mission(schedule=every(1))}
    dispatcher = Dispatcher(run=records.run, missions=missions, ledger=ledger)
    scheduler = Scheduler(ledger=ledger, dispatcher=dispatcher)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.serve(stop))
        await asyncio.sleep(0)
        scheduler.replace(missions)
        await scheduler.recover(records.find)
        os.write(1, b"ready\n")
        await scheduler.serve(stop, TimerAlarm())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
