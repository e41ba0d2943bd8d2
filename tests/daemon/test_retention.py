"""Old records in a daemon: they go after runs, but never by a clock that jumped."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reqon.clock import SYSTEM
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.records import ExecutionStatus
from reqon_daemon.happenings import RunEnded
from reqon_daemon.service import Service
from reqon_daemon.settings import DaemonSettings
from tests.support.state_contract import a_record

MISSION = """
mission Kept {
  schedule: every 1 hour
  stateRetention: 7 days
  store out: file("out")
  action A { store { id: 1 } -> out }
  run A
}
"""


@pytest.mark.parametrize("jumped", [True, False])
async def test_after_a_jump_of_the_clock_no_run_deletes_records(jumped: bool, tmp_path: Path) -> None:
    """S2 in part: retention is off after a jump, also that which follows a run."""
    (tmp_path / "kept.vague").write_text(MISSION)
    state = tmp_path / "state"
    backend = FileBackend(StateDirectory(state).open())
    at = SYSTEM.now() - timedelta(days=30)
    old = backend.create(a_record("Kept", at=at))
    backend.save(replace(old, status=ExecutionStatus.COMPLETED, completed_at=at))
    service = Service(DaemonSettings.read({"paths": [tmp_path / "kept.vague"], "state_dir": state}, environ={}))
    ended = asyncio.Event()
    service.happenings.on(RunEnded, lambda _: ended.set())
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(service.serve())
        await service.ready.wait()
        service.scheduler.clock_jumped = jumped
        service.dispatcher.trigger("Kept")
        await ended.wait()
        await service.housekeeping.sweep(("Kept",))
        service.stop()
    assert (backend.load(old.execution_id) is not None) == jumped
    assert len(backend.list("Kept")) == 1 + jumped
