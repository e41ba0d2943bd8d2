"""Records as files."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reqon.errors import StateError
from reqon.files import make_directory
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.records import ExecutionStatus
from tests.support.disks import UnreadableDisk
from tests.support.state_contract import T0, StateContract, a_full_record, a_record, running


class TestFileBackend(StateContract):
    @pytest.fixture
    def backend(self, directory: StateDirectory) -> FileBackend:
        return FileBackend(directory)

    def test_files_are_named_after_mission_and_second(self, backend: FileBackend, directory: StateDirectory) -> None:
        done = ExecutionStatus.COMPLETED
        for _ in range(3):
            backend.create(a_record("CustomerSync", status=done))
        names = [f"CustomerSync-2024-03-01T08-15-00{n}.json" for n in ("-2", "-3", "")]
        assert directory.disk.list(directory.executions) == names

    def test_records_are_readable_with_jq(self, backend: FileBackend, directory: StateDirectory) -> None:
        record = backend.create(a_full_record())
        text = (directory.executions / f"{record.file_name}.json").read_text()
        assert text.startswith('{\n  "executionId"')
        assert text.endswith("}\n")
        shown = json.loads(text)
        assert shown["startedAt"] == "2024-03-01T08:15:00.412Z"
        assert shown["activeStep"] == {"action": "Load", "step": "for", "index": 523, "item": {"id": "parcel_524"}}
        assert shown["stores"] == {"parcels": {"count": 500, "added": 400, "unchanged": 0, "deleted": 2}}
        assert "resumedFrom" not in json.loads(
            (directory.executions / f"{backend.create(a_record()).file_name}.json").read_text()
        )

    def test_nothing_but_the_record_is_left_of_an_ended_run(
        self, backend: FileBackend, directory: StateDirectory
    ) -> None:
        record = backend.create(a_record())
        with running(directory, record):
            backend.save(record, durable=False)
            backend.save(replace(record, status=ExecutionStatus.COMPLETED))
        assert directory.disk.list(directory.executions) == [f"{record.file_name}.json"]

    def test_everything_we_make_is_ours_alone(self, tmp_path: Path) -> None:
        """K2."""
        before = os.umask(0)
        try:
            directory = StateDirectory(tmp_path / "state").open()
            backend = FileBackend(directory)
            record = backend.create(a_record())
            journal = backend.journal(record)
            journal.append("action", {})
            journal.sync()
            journal.close()
            backend.put_sync("A", {"k": SyncCheckpoint(T0, 1, None)})
            directory.quarantine(journal.path, "was chosen", kind="journal", copy=True)
            backend.delete(backend.create(a_record()))
        finally:
            os.umask(before)
        found = [directory.path, *directory.path.rglob("*")]
        assert len(found) > 10
        for path in found:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path

    def test_a_record_that_cannot_be_read_now_is_an_error_not_an_absence(
        self, backend: FileBackend, directory: StateDirectory
    ) -> None:
        record = backend.create(a_full_record())
        warned: list[str] = []
        blind = StateDirectory(directory.path, disk=UnreadableDisk(lambda p: p.suffix == ".json"), warn=warned.append)
        with pytest.raises(StateError, match="cannot read"):
            FileBackend(blind).load(record.execution_id)
        assert FileBackend(blind).list() == []
        assert [w for w in warned if record.file_name in w]
        assert backend.load(record.execution_id) == record

    def test_reading_makes_nothing(self, tmp_path: Path) -> None:
        backend = FileBackend(StateDirectory(tmp_path / "absent"))
        assert backend.list() == []
        assert backend.load("exec_abc123") is None
        assert backend.sync_checkpoints("A") == {}
        assert list(backend.latest()) == []
        assert not (tmp_path / "absent").exists()

    def test_two_processes_never_share_a_name(self, directory: StateDirectory) -> None:
        script = (
            "import sys; from reqon.state.directory import *; from reqon.state.file import *;"
            "from tests.support.state_contract import *;"
            "b = FileBackend(StateDirectory(sys.argv[1]));"
            "print(*[b.create(a_record()).file_name for _ in range(20)])"
        )
        command = [sys.executable, "-c", script, str(directory.path)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        names = [name for p in processes for name in p.communicate(timeout=60)[0].split()]
        assert len(names) == len(set(names)) == 60

    def test_a_leftover_journal_is_not_taken_over(self, backend: FileBackend, directory: StateDirectory) -> None:
        old = backend.create(a_record())
        journal = backend.journal(old)
        journal.append("action", {"action": "Old"})
        journal.close()
        (directory.executions / f"{old.file_name}.json").unlink()
        new = backend.create(a_record())
        assert list(backend.journal(new).entries()) == []


def test_a_new_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
