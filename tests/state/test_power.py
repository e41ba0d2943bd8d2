"""What is left of the state when the power goes, a write fails, or a sync does (spec/reliability.md 1)."""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.errors import StateError
from reqon.files import Content, Disk
from reqon.state.backend import JournalEntry, SyncCheckpoint
from reqon.state.directory import StateDirectory, StateWriteError
from reqon.state.file import FileBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.state.recovery import recover
from tests.support.disks import FailingDisk, PowerDisk, PowerLoss
from tests.support.state_contract import T0, a_record

COMPLETED = ExecutionStatus.COMPLETED


@dataclass
class Promised:
    """What a run was told is safe, and the most that may be there."""

    record: ExecutionRecord | None = None
    safe_items: int = 0
    asked_items: int = 0
    status: ExecutionStatus = ExecutionStatus.RUNNING
    safe_entries: int = 0
    asked_entries: int = 0
    safe_sync: int = 0
    asked_sync: int = 0
    ended: bool = False


def run(backend: FileBackend, random: Random, promised: Promised) -> None:
    """A run as the engine's: entries, checkpoints, records; then its sync checkpoint and its end."""
    record = promised.record = backend.create(a_record())
    journal = backend.journal(record)
    try:
        for items in range(1, random.randint(3, 12)):
            for _ in range(random.randint(1, 4)):
                body = bytes(random.randint(0, 300)).replace(b"\0", b" ") + b"[1]" if random.random() < 0.3 else None
                journal.append("page", {"n": promised.asked_entries}, body=body)
                promised.asked_entries += 1
            if random.random() < 0.5:
                journal.write()
            record = replace(record, items_processed=items)
            promised.asked_items = items
            if random.random() < 0.5:
                journal.sync()
                promised.safe_entries = promised.asked_entries
                backend.save(record)
                promised.safe_items = items
            else:
                backend.save(record, durable=False)
        journal.sync()
        promised.safe_entries = promised.asked_entries
    finally:
        journal.close()
    for _ in range(2):
        promised.asked_sync += 1
        backend.put_sync("DepotSync", {"k": SyncCheckpoint(T0, 1, None)})
        promised.safe_sync = promised.asked_sync
    promised.status = COMPLETED
    backend.save(replace(record, status=COMPLETED))
    promised.safe_items, promised.ended = promised.asked_items, True
    backend.journal(record).discard()


def check(path: Path, promised: Promised) -> None:
    """Whatever was promised is there, nothing is unreadable, and one can go on."""
    warned: list[str] = []
    directory = StateDirectory(path, warn=warned.append).open()
    backend = FileBackend(directory)
    found = backend.list()
    if promised.record is None:
        assert len(found) <= 1, "a creation that did not return may be there or not"
        promised.record = found[0] if found else backend.create(a_record())
    recover(backend, directory)
    record = backend.load(promised.record.execution_id)
    assert record is not None, warned
    assert promised.safe_items <= record.items_processed <= promised.asked_items
    if promised.ended:
        assert record.status is COMPLETED
    else:
        assert record.status in (ExecutionStatus.INTERRUPTED, promised.status)
    if record.status is not COMPLETED:
        journal = backend.journal(record)
        entries = list(journal.entries())
        assert [e.fields["n"] for e in entries] == list(range(len(entries)))
        assert promised.safe_entries <= len(entries) <= promised.asked_entries
        assert all(journal.read_body(e.body).endswith(b"[1]") for e in entries if e.body)
        journal.append("page", {"n": len(entries)})
        journal.sync()
        journal.close()
        again: list[JournalEntry] = list(backend.journal(record).entries())
        assert [e.fields["n"] for e in again] == list(range(len(entries) + 1))
        assert directory.quarantined["journal"] == 0, warned
    checkpoint = backend.sync_checkpoints("DepotSync").get("k")
    assert promised.safe_sync <= (checkpoint.items_synced if checkpoint else 0) <= promised.asked_sync
    backend.save(replace(record, status=COMPLETED))
    assert backend.load(record.execution_id) == replace(record, status=COMPLETED)


def lose_power(tmp: Path, seed: int, disk_type: type[PowerDisk] = PowerDisk) -> None:
    random = Random(seed)
    StateDirectory(tmp / "state").open()
    disk = disk_type(tmp / "state", power_off_at=random.randint(1, 90))
    promised = Promised()
    try:
        with suppress(PowerLoss):
            directory = StateDirectory(tmp / "state", disk=disk).open()
            run(FileBackend(directory), random, promised)
        check(disk.after_power_loss(tmp / "after", random), promised)
    finally:
        disk.close()


def lose_power_often(fresh: Callable[[], Path], times: int, disk_type: type[PowerDisk] = PowerDisk) -> None:
    for seed in range(times):
        lose_power(fresh(), seed, disk_type)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("power")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_after_a_power_loss_all_that_was_promised_is_there(fresh: Callable[[], Path], seed: int) -> None:
    """D4, for records, journals and sync checkpoints."""
    lose_power(fresh(), seed)


@pytest.mark.slow
def test_after_a_thousand_power_losses_all_that_was_promised_is_there(fresh: Callable[[], Path]) -> None:
    """D4, for records, journals and sync checkpoints."""
    lose_power_often(fresh, 1000)


class RenamesWithoutSync(PowerDisk):
    def sync(self, fd: int, what: str) -> None:
        if what not in ("record", "sync-checkpoints"):
            super().sync(fd, what)


class ForgetsDirectories(PowerDisk):
    def sync_dir(self, path: Path) -> None:
        if path.name != "execution":
            super().sync_dir(path)


class LeavesCutTails(PowerDisk):
    def truncate(self, fd: int, length: int) -> None:
        pass


class WithoutSpare(PowerDisk):
    def replace(
        self,
        path: Path,
        data: Content,
        what: str,
        *,
        durable: bool = True,
        spare: Path | None = None,
        last: Callable[[], bytes] | None = None,
    ) -> None:
        super().replace(path, data, what, durable=durable, last=last)

    def create(self, path: Path, data: bytes, what: str, *, spare: Path | None = None) -> bool:
        made = super().create(path, data, what)
        if spare:
            spare.touch()  # so that quick saves stay quick
        return made


class SyncsNothing(PowerDisk):
    def sync(self, fd: int, what: str) -> None:
        if what != "journal":
            super().sync(fd, what)


@pytest.mark.parametrize("plant", [RenamesWithoutSync, ForgetsDirectories, WithoutSpare, SyncsNothing])
def test_the_power_test_sees_what_is_left_out(fresh: Callable[[], Path], plant: type[PowerDisk]) -> None:
    """D5: without each of these the test above fails."""
    with pytest.raises((AssertionError, StateError)):
        lose_power_often(fresh, 150, plant)


def test_the_power_test_sees_a_tail_that_is_not_cut(tmp_path: Path) -> None:
    """D5: an entry written behind half a line is lost with all that follows."""
    directory = StateDirectory(tmp_path, disk=LeavesCutTails(tmp_path)).open()
    backend = FileBackend(directory)
    record = backend.create(a_record())
    (directory.executions / f"{record.file_name}.journal").write_bytes(b'{"t":"page","n":0')
    journal = backend.journal(record)
    journal.append("page", {"n": 1})
    journal.close()
    assert [e.fields["n"] for e in backend.journal(record).entries()] != [1]


# --- disks that refuse ---


def what_ends_it(directory: StateDirectory, promised: Promised) -> StateWriteError | None:
    """Run; the error that the disk's refusal ends in, if it comes to that."""
    try:
        run(FileBackend(directory), Random(7), promised)
    except StateWriteError as error:
        return error
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refused_write_costs_the_run_and_nothing_else(tmp_path: Path, number: int) -> None:
    """D6, for records, journals and sync checkpoints."""
    refused = nth = 0
    while refused == nth:
        nth += 1
        path = tmp_path / str(nth)
        StateDirectory(path).open()
        disk = FailingDisk(write=nth, number=number)
        promised, directory = Promised(), StateDirectory(path, disk=disk)
        if error := what_ends_it(directory, promised):
            assert "cannot write" in error.message
            assert str(path) in error.message
            assert directory.write_errors == 1
        refused += disk.refused
        check(path, promised)
    assert refused > 15


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_refused_sync_is_never_believed(tmp_path: Path, for_ever: bool) -> None:
    """D6: one failed sync is made good by a new file; a disk that goes on failing ends the run."""
    refused = nth = 0
    while nth == 0 or refused:
        nth += 1
        path = tmp_path / str(nth)
        StateDirectory(path).open()
        disk, promised = FailingDisk(sync=nth, number=errno.EIO, for_ever=for_ever), Promised()
        assert what_ends_it(StateDirectory(path, disk=disk), promised) is None or for_ever
        refused = disk.refused
        check(path, promised)
    assert nth > 10


def test_a_journal_goes_on_in_a_new_file_after_a_failed_sync(tmp_path: Path) -> None:
    disk = FailingDisk(number=errno.EIO)
    directory = StateDirectory(tmp_path, disk=disk).open()
    backend = FileBackend(directory)
    record = backend.create(a_record())
    journal = backend.journal(record)
    journal.append("page", {"n": 0})
    journal.write()
    before = journal.path.stat().st_ino
    disk._sync = disk.syncs + 1
    journal.sync()
    assert journal.path.stat().st_ino != before, "what the failed sync left counts as lost"
    journal.append("page", {"n": 1}, body=b"[2]")
    journal.sync()
    assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1]
    journal.close()


def test_after_two_failed_syncs_nothing_more_is_taken(tmp_path: Path) -> None:
    disk = FailingDisk(number=errno.EIO, for_ever=True)
    backend = FileBackend(StateDirectory(tmp_path, disk=disk).open())
    journal = backend.journal(backend.create(a_record()))
    journal.append("page", {"n": 0})
    disk._sync = disk.syncs + 1
    with pytest.raises(StateWriteError):
        journal.sync()
    disk._sync = 0
    journal.append("page", {"n": 1})
    for attempt in (journal.write, journal.sync):
        with pytest.raises(StateWriteError):
            attempt()


def test_an_entry_that_did_not_fit_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    disk = FailingDisk()
    backend = FileBackend(StateDirectory(tmp_path, disk=disk).open())
    record = backend.create(a_record())
    journal = backend.journal(record)
    journal.append("page", {"n": 0})
    disk._write = disk.writes + 1
    with pytest.raises(StateWriteError, match="No space"):
        journal.write()
    ref = journal.append("page", {"n": 1}, body=b"[7]")
    journal.close()
    again = backend.journal(record)
    assert [e.fields["n"] for e in again.entries()] == [0, 1]
    assert ref is not None
    assert again.read_body(ref) == b"[7]"
    again.close()


def test_a_disk_without_hard_links_keeps_the_same_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    directory = StateDirectory(tmp_path).open()
    backend = FileBackend(directory)
    first, second = backend.create(a_record()), backend.create(a_record())
    assert first.file_name != second.file_name
    backend.save(replace(first, items_processed=3), durable=False)
    assert directory.disk.list(directory.executions) == [
        f".{first.file_name}-2.spare",
        f".{first.file_name}.spare",
        f"{first.file_name}-2.json",
        f"{first.file_name}.json",
    ]
    found = backend.load(first.execution_id)
    assert found is not None
    assert found.items_processed == 3
    assert isinstance(directory.disk, Disk)
