"""What every state backend must do; subclass `StateContract` and give it a `backend` fixture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from reqon.errors import StateError
from reqon.state.backend import StateBackend, SyncCheckpoint
from reqon.state.directory import StateDirectory
from reqon.state.ids import new_execution_id
from reqon.state.records import (
    ActiveStep,
    Checkpoint,
    ExecutionRecord,
    ExecutionStatus,
    Owner,
    RunError,
    StoreTotals,
    Trigger,
)
from reqon.state.recovery import recover

T = TypeVar("T")

T0 = datetime(2024, 3, 1, 8, 15, 0, 412_000, tzinfo=UTC)


def there(value: T | None) -> T:
    """The value, which must not be None."""
    assert value is not None
    return value


def a_record(mission: str = "DepotSync", *, at: datetime = T0, **fields: object) -> ExecutionRecord:
    """A running record begun at `at`."""
    record = ExecutionRecord(
        execution_id=new_execution_id(at), mission=mission, started_at=at, status=ExecutionStatus.RUNNING
    )
    return replace(record, **fields)  # type: ignore[arg-type]


def a_full_record() -> ExecutionRecord:
    """A record with every field in use."""
    return a_record(
        completed_at=T0 + timedelta(seconds=9),
        status=ExecutionStatus.FAILED,
        trigger=Trigger.SCHEDULE,
        attempt=3,
        resumed_from=new_execution_id(T0 - timedelta(days=1)),
        mission_hash="5f2c",
        actions_run=("Fetch", "Load"),
        active_step=ActiveStep(action="Load", step="for", index=523, item={"id": "parcel_524"}),
        checkpoints={"Load": Checkpoint(items_processed=500, at=T0, page=5, cursor="c9", index=500, total=1000)},
        items_processed=1023,
        requests=17,
        retries=2,
        invalid=1,
        errors=(RunError(message="no", type="http", at=T0, action="Load", location="a.vague:3:5", status=500),),
        errors_total=4,
        stores={"parcels": StoreTotals(count=500, added=400, updated=None, unchanged=0, deleted=2)},
        owner=Owner(host="depot", pid=1, instance="a"),
        duration_ms=9000,
        scheduled_for=T0,
        reqon_version="0.1.0",
        resumes_without_progress=1,
        unknown={"fromTomorrow": {"a": [1, None]}},
    )


@contextmanager
def running(directory: StateDirectory, record: ExecutionRecord) -> Iterator[None]:
    """Be the owner of an execution."""
    lock = directory.execution_lock(record.execution_id)
    assert lock.take()
    try:
        yield
    finally:
        lock.release()


class StateContract:
    shows_where_it_runs = True  # whether a running record is shown with its journal's place

    @pytest.fixture
    def directory(self, tmp_path: Path) -> StateDirectory:
        return StateDirectory(tmp_path / "state").open()

    @pytest.fixture
    def backend(self, directory: StateDirectory) -> StateBackend:
        raise NotImplementedError

    # --- records ---

    def test_a_record_comes_back_as_it_was_saved(self, backend: StateBackend) -> None:
        record = backend.create(a_full_record())
        assert backend.load(record.execution_id) == record
        assert backend.list() == [record]

    def test_an_unknown_execution_is_none(self, backend: StateBackend) -> None:
        backend.create(a_full_record())
        assert backend.load(new_execution_id(T0)) is None
        assert backend.load("exec_abc123") is None

    def test_ids_of_other_programs_are_found(self, backend: StateBackend) -> None:
        record = backend.create(a_record(execution_id="exec_abc123", status=ExecutionStatus.COMPLETED))
        assert backend.load("exec_abc123") == record

    @pytest.mark.parametrize("durable", [True, False])
    def test_a_save_replaces_the_record(self, backend: StateBackend, directory: StateDirectory, durable: bool) -> None:
        record = backend.create(a_record())
        with running(directory, record):
            for items in range(1, 4):
                record = replace(record, items_processed=items)
                backend.save(record, durable=durable)
                assert backend.load(record.execution_id) == record
        assert len(backend.list()) == 1

    def test_executions_of_one_second_are_kept_apart(self, backend: StateBackend) -> None:
        done = ExecutionStatus.COMPLETED
        records = [backend.create(a_record(items_processed=n, status=done)) for n in range(12)]
        assert len({r.file_name for r in records}) == 12
        assert sorted(r.items_processed for r in backend.list()) == list(range(12))
        assert [backend.load(r.execution_id) for r in records] == records

    def test_the_list_is_newest_first_and_can_be_cut(self, backend: StateBackend) -> None:
        done = ExecutionStatus.COMPLETED
        made = [backend.create(a_record(at=T0 + timedelta(hours=n), status=done)) for n in range(9)]
        other = backend.create(a_record("Other", at=T0 + timedelta(days=1), status=ExecutionStatus.FAILED))
        assert backend.list() == [other, *reversed(made)]
        assert backend.list(limit=3) == [other, made[8], made[7]]
        assert backend.list("DepotSync", limit=2) == [made[8], made[7]]
        assert backend.list("Depot") == []
        assert backend.list(status=ExecutionStatus.FAILED) == [other]
        assert backend.list(limit=0) == []
        assert backend.list("DepotSync", since=T0 + timedelta(hours=7)) == [made[8], made[7]]
        assert backend.list("DepotSync", before=T0 + timedelta(hours=1)) == [made[0]]
        assert list(backend.latest()) == [made[8], other]

    def test_missions_whose_names_need_care_are_kept_apart(self, backend: StateBackend) -> None:
        names = ["depotsync", "DepotSync", "Depot/Sync", "Depot Sync", "../Depot", ".Depot", "Zürich", "D" * 400]
        names += ["D" * 401, "Depot-2024-03-01T08-15-00", "Depot", "Depot%2FSync", "."]
        made = {name: backend.create(a_record(name, status=ExecutionStatus.COMPLETED)) for name in names}
        for name in names:
            assert backend.list(name) == [made[name]]
        assert len(backend.list()) == len(names) == len(backend.latest())

    def test_the_newest_comes_first_also_within_a_second(self, backend: StateBackend) -> None:
        done = ExecutionStatus.COMPLETED
        moments = ((5, "B"), (0, "C"), (7, "A"), (2, "B"), (1, "A"), (9, "B"))
        made = [backend.create(a_record(name, at=T0 + timedelta(milliseconds=n), status=done)) for n, name in moments]
        newest = sorted(made, key=lambda record: record.started_at, reverse=True)
        assert backend.list() == newest
        assert backend.list(limit=1) == newest[:1]
        assert backend.list("B", limit=2) == [r for r in newest if r.mission == "B"][:2]

    def test_unknown_keys_survive_a_rewrite(self, backend: StateBackend) -> None:
        """D10."""
        record = backend.create(a_full_record())
        backend.save(replace(there(backend.load(record.execution_id)), attempt=4))
        assert there(backend.load(record.execution_id)).unknown == {"fromTomorrow": {"a": [1, None]}}

    def test_a_record_of_a_newer_version_is_shown_and_left_alone(self, backend: StateBackend) -> None:
        """D10."""
        record = backend.create(a_record(reqon_version="99.0.0", status=ExecutionStatus.FAILED))
        assert backend.list() == [record]
        for change in (backend.save, backend.delete):
            with pytest.raises(StateError, match=r"99\.0\.0"):
                change(record)
        assert backend.list() == [record]

    # --- owners ---

    def test_a_dead_owners_record_reads_interrupted_at_the_journals_place(
        self, backend: StateBackend, directory: StateDirectory
    ) -> None:
        record = backend.create(a_record(active_step=ActiveStep(action="Load", step="for", index=3)))
        with running(directory, record):
            assert there(backend.load(record.execution_id)).status is ExecutionStatus.RUNNING
            assert backend.list(status=ExecutionStatus.INTERRUPTED) == []
            assert backend.orphans() == []
            journal = backend.journal(record)
            journal.append("checkpoint", {"a": "0/Load", "p": "l1", "i": 10})
            journal.append("progress", {"a": "0/Load", "p": "l1", "i": 17})
            journal.close()
            if self.shows_where_it_runs:
                # A record is saved ten times a second at most, and not at all while a request hangs.
                now = there(backend.load(record.execution_id))
                assert now.status is ExecutionStatus.RUNNING
                assert now.active_step == ActiveStep(action="Load", step="for", index=17)
                assert backend.list() == [now]
        shown = there(backend.load(record.execution_id))
        assert shown.status is ExecutionStatus.INTERRUPTED
        assert shown.active_step == ActiveStep(action="Load", step="for", index=17)
        assert backend.list(status=ExecutionStatus.RUNNING) == []
        assert backend.list(status=ExecutionStatus.INTERRUPTED) == [shown]
        assert backend.orphans() == [record], "readers write nothing"

    def test_recovery_writes_what_readers_see(self, backend: StateBackend, directory: StateDirectory) -> None:
        """R2."""
        dead, alive = backend.create(a_record()), backend.create(a_record("Other"))
        with running(directory, alive):
            shown = backend.load(dead.execution_id)
            assert recover(backend, directory) == [shown]
            assert recover(backend, directory) == []
            assert backend.orphans() == []
            assert backend.load(alive.execution_id) == alive

    def test_a_running_execution_is_not_deleted(self, backend: StateBackend, directory: StateDirectory) -> None:
        record = backend.create(a_record())
        with running(directory, record), pytest.raises(StateError, match="running"):
            backend.delete(record)
        assert backend.load(record.execution_id) is not None

    def test_deleting_frees_what_it_said(self, backend: StateBackend, directory: StateDirectory) -> None:
        record, kept = backend.create(a_record()), backend.create(a_full_record())
        journal = backend.journal(record)
        journal.append("action", {"action": "Load"}, body=b"[1, 2, 3]" * 100)
        journal.sync()
        journal.close()
        expected = backend.stored_bytes(record)
        assert expected > 900
        assert backend.delete(record) == expected
        assert backend.list() == [kept]
        assert not backend.journal(record).exists
        assert backend.delete(record) == 0

    # --- journals ---

    def test_a_journal_is_made_by_its_first_write(self, backend: StateBackend) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        assert not journal.exists
        assert list(journal.entries()) == []
        journal.append("bind", {"a": 1})
        assert not journal.exists
        journal.write()
        assert backend.journal(record).exists
        assert journal.size > 0
        journal.close()

    def test_a_journal_gives_back_its_entries_and_bodies(self, backend: StateBackend) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        body = b'{"items": [\r\n  {"id": 1, "body": "a\\nb"}\n]}'
        kept = body.replace(b"\r", b" ").replace(b"\n", b" ")
        written: list[tuple[str, dict[str, object], bytes | None]] = [
            ("loop", {"n": 1, "nested": {"a": 1, "body": {"x": 2}}}, None),
            ("page", {"page": 3, "note": ',"body":'}, body),
            ("page", {"nested": {"a": 1, "body": 2}}, b"0"),
            ("progress", {"action": "Load", "index": 7}, None),
        ]
        refs = [journal.append(kind, fields, body=b) for kind, fields, b in written]
        journal.sync()
        for again in (journal, backend.journal(record)):
            entries = list(again.entries())
            assert [(e.kind, e.fields) for e in entries] == [(kind, fields) for kind, fields, _ in written]
            assert [e.body for e in entries] == refs
            assert again.read_body(there(refs[1])) == kept
            assert again.read_body(there(refs[2])) == b"0"
            assert there(again.last("page")).fields == written[2][1]
            assert there(again.last("loop", "progress")).fields == written[3][1]
            assert again.last("action") is None
            again.close()

    def test_a_reopened_journal_goes_on_behind_its_last_entry(self, backend: StateBackend) -> None:
        record = backend.create(a_record())
        for n in range(5):
            journal = backend.journal(record)
            if n % 2:
                assert len(list(journal.entries())) == n
            ref = journal.append("page", {"n": n}, body=b"[%d]" % n)
            journal.close()
            again = backend.journal(record)
            assert [e.fields["n"] for e in again.entries()] == list(range(n + 1))
            assert again.read_body(there(ref)) == b"[%d]" % n
            again.close()

    def test_reading_part_of_a_journal_costs_none_of_it(self, backend: StateBackend) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        for n in range(10):
            journal.append("bind", {"n": n})
        journal.close()
        journal = backend.journal(record)
        next(journal.entries())
        journal.append("bind", {"n": 10})
        journal.close()
        assert [e.fields["n"] for e in backend.journal(record).entries()] == list(range(11))

    def test_a_discarded_journal_is_gone_and_can_begin_again(self, backend: StateBackend) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        journal.append("bind", {"n": 1})
        journal.sync()
        journal.append("bind", {"n": 2})
        journal.discard()
        assert not journal.exists
        assert list(backend.journal(record).entries()) == []
        journal.append("bind", {"n": 3})
        journal.close()
        assert [e.fields["n"] for e in backend.journal(record).entries()] == [3]

    # --- sync checkpoints ---

    def test_sync_checkpoints_add_up_and_never_move_back(self, backend: StateBackend) -> None:
        key = "Depot-/parcels"
        backend.put_sync("A", {key: SyncCheckpoint(T0, 100, None), "Depot-/drivers": SyncCheckpoint(T0, 1, None)})
        later = T0 + timedelta(minutes=1)
        backend.put_sync("A", {key: SyncCheckpoint(later, 20, None)})
        backend.put_sync("A", {key: SyncCheckpoint(T0, 3, None)})
        assert backend.sync_checkpoints("A")[key] == SyncCheckpoint(later, 123, "A")
        assert backend.sync_checkpoints("A")["Depot-/drivers"] == SyncCheckpoint(T0, 1, "A")

    def test_two_missions_with_one_key_do_not_move_each_other(self, backend: StateBackend) -> None:
        key = "Depot-/parcels"
        for n, mission in enumerate(["A", "B", "A/B"]):
            assert backend.sync_checkpoints(mission) == {}
            backend.put_sync(mission, {key: SyncCheckpoint(T0 + timedelta(hours=n), 1, None)})
        for n, mission in enumerate(["A", "B", "A/B"]):
            expected = SyncCheckpoint(T0 + timedelta(hours=n), 1, mission)
            assert backend.sync_checkpoints(mission) == {key: expected}

    def test_a_key_that_looks_like_a_missions_own_is_itself(self, backend: StateBackend) -> None:
        backend.put_sync("Other", {"key": SyncCheckpoint(T0, 1, None)})
        first, second = T0 + timedelta(hours=1), T0 + timedelta(hours=2)
        backend.put_sync("A", {"A/key": SyncCheckpoint(first, 1, None)})
        assert dict(backend.sync_checkpoints("A")) == {"A/key": SyncCheckpoint(first, 1, "A")}
        backend.put_sync("A", {"key": SyncCheckpoint(second, 1, None)})
        found = backend.sync_checkpoints("A")
        assert dict(found) == {"A/key": SyncCheckpoint(first, 1, "A"), "key": SyncCheckpoint(second, 1, "A")}

    def test_clearing_forgets_one_key_or_all(self, backend: StateBackend) -> None:
        backend.put_sync("A", {k: SyncCheckpoint(T0, 1, None) for k in ("x", "y", "z")})
        assert backend.clear_sync("nothing") == 0
        assert backend.clear_sync("x") == 1
        assert set(backend.sync_checkpoints("A")) == {"y", "z"}
        assert backend.clear_sync(None) == 2
        assert backend.sync_checkpoints("A") == {}
