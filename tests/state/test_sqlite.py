"""Everything in one `state.db`."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reqon.errors import StateError
from reqon.state.backend import SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from reqon.state.sqlite import SqliteBackend
from tests.support.state_contract import T0, StateContract, a_full_record, a_record, there

_WRITES = """
import sys
from reqon.state.directory import StateDirectory
from reqon.state.sqlite import SqliteBackend
from tests.support.state_contract import a_record
backend = SqliteBackend(StateDirectory(sys.argv[1]))
record = backend.create(a_record(execution_id="exec_abc123"))
journal = backend.journal(record)
for n in range(1_000_000):
    journal.append("page", {"n": n}, body=b"[%d]" % n)
    journal.write()
    print(n, flush=True)
"""


class TestSqliteBackend(StateContract):
    @pytest.fixture
    def backend(self, directory: StateDirectory) -> Iterator[SqliteBackend]:
        backend = SqliteBackend(directory)
        yield backend
        backend.close()

    def test_the_database_is_ours_alone(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        """K2."""
        before = os.umask(0)
        try:
            backend.create(a_record())
        finally:
            os.umask(before)
        files = list(directory.path.glob("state.db*"))
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    def test_looking_makes_nothing(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        assert backend.list() == []
        assert backend.load("exec_abc123") is None
        assert backend.sync_checkpoints("A") == {}
        assert list(backend.latest()) == list(backend.orphans()) == []
        assert not backend.journal(a_record()).exists
        assert not directory.database.exists()

    def test_two_backends_see_what_each_other_wrote(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        other = SqliteBackend(directory)
        record = backend.create(a_full_record())
        assert other.load(record.execution_id) == record
        other.save(replace(record, attempt=9))
        assert there(backend.load(record.execution_id)).attempt == 9
        other.close()

    def test_what_was_written_survives_a_kill(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        command = [sys.executable, "-c", _WRITES, str(directory.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(200)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.read().splitlines()
        record = there(backend.load("exec_abc123"))
        entries = list(backend.journal(record).entries())
        assert len(entries) >= len(said) - 1
        assert [e.fields["n"] for e in entries] == list(range(len(entries)))

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + bytes(4000)])
    def test_a_damaged_database_is_named_and_not_written_over(self, directory: StateDirectory, content: bytes) -> None:
        """D8, for the database."""
        directory.database.write_bytes(content)
        backend = SqliteBackend(directory)
        for use in (backend.list, lambda: backend.create(a_record()), lambda: backend.sync_checkpoints("A")):
            with pytest.raises(StateError, match=r"state\.db"):
                use()
        assert directory.database.read_bytes() == content

    def test_a_newer_layout_is_refused(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        """D10."""
        with sqlite3.connect(directory.database) as connection:
            connection.execute("PRAGMA user_version=9")
        connection.close()
        with pytest.raises(StateError, match="newer Reqon"):
            backend.list()

    def test_a_damaged_record_is_told_of_and_all_else_goes_on(self, directory: StateDirectory) -> None:
        """D8, for records."""
        warned: list[str] = []
        directory.warn = warned.append
        backend = SqliteBackend(directory)
        bad, good = backend.create(a_full_record()), backend.create(a_record("B", status=ExecutionStatus.COMPLETED))
        with sqlite3.connect(directory.database) as connection:
            connection.execute("UPDATE records SET record = x'00' WHERE name = ?", (bad.file_name,))
        connection.close()
        assert backend.list() == backend.list() == [good]
        assert len(warned) == 1
        backend.close()

    def test_entries_from_before_they_had_checksums_are_read(
        self, backend: SqliteBackend, directory: StateDirectory
    ) -> None:
        """D10."""
        journal = backend.journal(record := backend.create(a_record()))
        journal.append("page", {"n": 1}, body=b"[1, 2]")
        journal.sync()
        with sqlite3.connect(directory.database) as connection:
            connection.execute("UPDATE journal SET fields = CAST(substr(fields, 1, length(fields) - 17) AS BLOB)")
        connection.close()
        (entry,) = (again := backend.journal(record)).entries()
        assert (entry.fields, entry.body is not None and again.read_body(entry.body)) == ({"n": 1}, b"[1, 2]")

    def test_one_thread_appends_while_another_syncs(self, backend: SqliteBackend) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        done = threading.Event()

        def sync() -> None:
            while not done.is_set():
                journal.sync()

        thread = threading.Thread(target=sync)
        thread.start()
        for n in range(500):
            journal.append("page", {"n": n})
            journal.write()
        done.set()
        thread.join()
        assert [e.fields["n"] for e in backend.journal(record).entries()] == list(range(500))

    def test_a_full_journal_takes_what_ends_actions_only(self, directory: StateDirectory) -> None:
        backend = SqliteBackend(directory, journal_max=500)
        record = backend.create(a_record())
        journal = backend.journal(record)
        taken = 0
        while journal.append("page", {"n": taken}, body=b"[1, 2, 3]"):
            taken += 1
        assert journal.full
        journal.append("action", {"a": "0/Load"})
        journal.close()
        again = backend.journal(record)
        assert [e.kind for e in again.entries()] == ["page"] * taken + ["full", "action"]
        assert again.append("page", {}, body=b"1") is None
        backend.close()

    def test_a_time_is_never_later_than_now(self, backend: SqliteBackend, directory: StateDirectory) -> None:
        now = directory.clock.now()
        backend.put_sync("A", {"k": SyncCheckpoint(now + timedelta(days=1), 1, None)})
        assert backend.sync_checkpoints("A")["k"].last_sync < now + timedelta(minutes=1)

    def test_clearing_can_mean_one_missions_key(self, backend: SqliteBackend) -> None:
        for mission in ("A", "B"):
            backend.put_sync(mission, {"k": SyncCheckpoint(T0, 1, None)})
        assert backend.clear_sync("B/k") == 1
        assert set(backend.sync_checkpoints("A")) == {"k"}

    def test_the_path_is_the_documented_one(self, backend: SqliteBackend, tmp_path: Path) -> None:
        backend.create(a_record())
        assert (tmp_path / "state" / "state.db").exists()
