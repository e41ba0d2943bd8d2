"""A process that judges what failed and tells a target, and kills itself on the way if it is told where.

python -m tests.support.alerting_process DIRECTORY URL FAILURES [FAILPOINT TIMES]

Missions M1 to M<FAILURES> have failed, one a minute. With a failpoint it sends itself SIGKILL when it passes that for
the TIMES-th time; otherwise it ends when all is delivered.
"""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from reqon import files
from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
from reqon_daemon.alerts import Alerts, Watched
from reqon_daemon.targets import parse_target

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def failure(number: int) -> ExecutionRecord:
    at = START + timedelta(minutes=number)
    return ExecutionRecord(
        execution_id=f"exec_{number:026d}",
        mission=f"M{number}",
        started_at=at - timedelta(seconds=1),
        completed_at=at,
        status=ExecutionStatus.FAILED,
        errors=(RunError(message="HTTP 503", type="http", at=at, action="Load", step="get"),),
        errors_total=1,
    )


def die_at(point: str, times: int) -> None:
    passed = count(1)

    def die(_name: str) -> None:
        if next(passed) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    files.arm(point, die)


async def main(directory: Path, url: str, failures: int) -> None:
    alerts = Alerts(directory, (parse_target(url),), instance="host", repeat_seconds=10**9)
    alerts.load()
    # Known since before anything failed, whatever the clock says; what is judged already stays so.
    for number in range(1, failures + 1):
        alerts.incidents.begin(f"M{number}", START)
        alerts.mission_loaded(Watched(name=f"M{number}", registered_at=START))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(alerts.run())
        alerts.judge_past([failure(number) for number in range(1, failures + 1)])
        while not await alerts.flush(60) or alerts.outbox.entries:
            await asyncio.sleep(0.01)
        running.cancel()


if __name__ == "__main__":
    folder, address, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if len(sys.argv) > 4:
        die_at(sys.argv[4], int(sys.argv[5]))
    asyncio.run(main(folder, address, number))
