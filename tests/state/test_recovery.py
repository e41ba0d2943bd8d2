"""Dead owners and live ones, seen by real locks of real processes."""

import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reqon.errors import StateError
from reqon.files import lock_is_free
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.records import ActiveStep, ExecutionStatus, Owner, Trigger, from_json, to_json
from reqon.state.recovery import given_up, gives_up, may_resume, progressed, recover, resumed
from tests.support.owners import Owner as OwnerProcess
from tests.support.state_contract import T0, a_full_record, a_record, there

INTERRUPTED = ExecutionStatus.INTERRUPTED
ME = Owner(host="depot", pid=1, instance="b")


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path).open()


@pytest.fixture
def backend(directory: StateDirectory) -> FileBackend:
    return FileBackend(directory)


def test_a_killed_owners_execution_is_recovered_and_a_live_ones_left_alone(
    backend: FileBackend, directory: StateDirectory
) -> None:
    """R2: killed and suspended owners."""
    killed, suspended = backend.create(a_record()), backend.create(a_record("Other"))
    with (
        OwnerProcess(directory.path, "execution", killed.execution_id) as first,
        OwnerProcess(directory.path, "execution", suspended.execution_id) as second,
    ):
        assert first.answer() == second.answer() == "held"
        assert recover(backend, directory) == []
        assert there(backend.load(killed.execution_id)).status is ExecutionStatus.RUNNING
        second.suspend()
        first.kill()
        assert there(backend.load(killed.execution_id)).status is INTERRUPTED
        assert [r.execution_id for r in recover(backend, directory)] == [killed.execution_id]
        assert backend.load(suspended.execution_id) == suspended
    text = (directory.executions / f"{killed.file_name}.json").read_bytes()
    assert from_json(text).status is INTERRUPTED


@pytest.mark.parametrize(
    "owner",
    [
        None,
        Owner(host="depot", pid=1, instance="a"),  # ours too, in a new container
        Owner(host=socket.gethostname(), pid=os.getpid(), instance=socket.gethostname()),  # alive, but another program
        Owner(host="elsewhere", pid=2**22, instance="before the reboot"),
    ],
)
@pytest.mark.parametrize("with_lock_file", [True, False])
@pytest.mark.parametrize("days", [3650, -3650], ids=["our clock set back", "our clock set forward"])
def test_the_lock_decides_whatever_the_record_says(
    backend: FileBackend, directory: StateDirectory, owner: Owner | None, with_lock_file: bool, days: int
) -> None:
    """R2: reused pid, reboot, no owner, pid 1, clock set back, no lease."""
    record = backend.create(a_record(at=T0 + timedelta(days=days), owner=owner))
    if with_lock_file:
        directory.execution_lock(record.execution_id).path.write_text(f"pid {owner.pid if owner else 0}")
    assert [r.execution_id for r in recover(backend, directory)] == [record.execution_id]


def test_recovery_takes_the_place_from_the_journal(backend: FileBackend, directory: StateDirectory) -> None:
    record = backend.create(a_record(active_step=ActiveStep(action="Load", step="for", index=500, item={"id": 500})))
    journal = backend.journal(record)
    journal.append("checkpoint", {"a": "0/Load", "i": 510})
    journal.append("progress", {"a": "0/Load", "i": 523})
    journal.append("page", {"n": 1}, body=b"[" + b"1," * 200_000 + b"1]")
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"t":"progress","action":"Load","ind')
    (found,) = recover(backend, directory)
    assert found.active_step == ActiveStep(action="Load", step="for", index=523)


def test_a_journal_that_a_completed_execution_left_behind_goes(backend: FileBackend, directory: StateDirectory) -> None:
    """Killed between the terminal record and the end of the journal; one that was only interrupted keeps its own."""
    done, cut = backend.create(a_record()), backend.create(a_record("Other"))
    for record in (done, cut):
        journal = backend.journal(record)
        journal.append("action", {"a": "0/Load"})
        journal.close()
    backend.save(replace(done, status=ExecutionStatus.COMPLETED))
    recover(backend, directory)
    assert not backend.journal(done).exists
    assert backend.journal(cut).exists


def test_recovery_of_one_mission_leaves_the_others(backend: FileBackend, directory: StateDirectory) -> None:
    ours, other = backend.create(a_record()), backend.create(a_record("Other"))
    assert [r.mission for r in recover(backend, directory, mission="DepotSync")] == ["DepotSync"]
    assert [r.execution_id for r in backend.orphans()] == [other.execution_id]
    assert ours.execution_id != other.execution_id


def test_a_newer_versions_orphan_is_left_alone(backend: FileBackend, directory: StateDirectory) -> None:
    """D10."""
    record = backend.create(a_record())
    path = directory.executions / f"{record.file_name}.json"
    path.write_bytes(to_json(replace(record, reqon_version="9.0.0")))
    assert recover(backend, directory) == []
    assert b'"running"' in path.read_bytes()


# --- how often ---


def test_three_resumes_without_progress_are_enough() -> None:
    """R5, for the count."""
    record = a_record(status=INTERRUPTED)
    for _ in range(3):
        assert not gives_up(record)
        record = replace(resumed(record, owner=ME), status=INTERRUPTED)
    assert gives_up(record)
    assert record.attempt == 4
    ended = given_up(record, now=T0)
    assert ended.status is ExecutionStatus.FAILED
    assert ended.errors[-1].message.startswith("resume gave up")
    assert ended.errors[-1].type == "stuck"
    assert ended.errors_total == 1


def test_progress_starts_the_count_anew() -> None:
    record = a_record(status=INTERRUPTED)
    for _ in range(20):
        record = progressed(resumed(replace(record, status=INTERRUPTED), owner=ME))
        assert not gives_up(record)
    assert progressed(record) is record


def test_a_resume_goes_on_in_the_same_record() -> None:
    record = resumed(a_full_record(), owner=ME)
    assert record.status is ExecutionStatus.RUNNING
    assert record.trigger is Trigger.RESUME
    assert record.completed_at is None
    assert record.owner == ME
    assert record.actions_run == ("Fetch", "Load")


def test_what_is_completed_cannot_be_resumed() -> None:
    with pytest.raises(StateError, match="nothing to resume"):
        resumed(a_record(status=ExecutionStatus.COMPLETED), owner=ME)
    assert may_resume(a_record(status=ExecutionStatus.FAILED))
    assert not may_resume(a_record(status=ExecutionStatus.FAILED, reqon_version="5.0"))


# --- one daemon, one runner of a mission ---


@pytest.mark.parametrize("pairs", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_of_two_daemons_started_together_one_stays(directory: StateDirectory, pairs: int) -> None:
    """R6, for the lock."""
    for _ in range(pairs):
        with ExitStack() as stack:
            both = [stack.enter_context(OwnerProcess(directory.path, "daemon", together=True)) for _ in range(2)]
            for owner in both:
                owner.go()
            assert sorted(owner.answer() for owner in both) == ["held", "taken"]


def test_a_killed_daemons_lock_is_free_at_once(directory: StateDirectory) -> None:
    """R6, for the lock."""
    lock = directory.daemon_lock
    for _ in range(3):
        with OwnerProcess(directory.path, "daemon") as first:
            assert first.answer() == "held"
            assert not lock.take()
            assert lock.note() == f"pid {first.process.pid}"
            first.kill()
            assert lock.take()
            lock.release()


def test_a_mission_has_one_runner_at_a_time(directory: StateDirectory) -> None:
    with OwnerProcess(directory.path, "mission", "DepotSync") as owner:
        assert owner.answer() == "held"
        assert not directory.mission_lock("DepotSync").take()
        other = directory.mission_lock("depotsync")
        assert other.take()
        other.release()
        owner.end()
        ours = directory.mission_lock("DepotSync")
        assert ours.take()
        ours.release()


def test_asking_for_a_lock_does_not_take_it(directory: StateDirectory) -> None:
    path = directory.execution_lock_path("exec_abc123")
    assert lock_is_free(path)
    assert not path.exists()
    lock = directory.execution_lock("exec_abc123")
    assert lock.take()
    assert not lock_is_free(path)
    lock.release()
    assert lock_is_free(path)
    assert lock.take()
    lock.release()
