"""Damaged records and journals: set aside or cut, and all else goes on."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.files import seal
from reqon.state.directory import StateDirectory
from reqon.state.file import FileBackend
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon.values import decode, encode
from tests.support.disks import UnreadableDisk
from tests.support.state_contract import a_full_record, a_record, running, there
from tests.support.values import JSON_VALUES, deep


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def other(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-20]),
    "empty": lambda p: p.write_bytes(b""),
    "NULs": lambda p: p.write_bytes(bytes(500)),
    "not JSON": lambda p: p.write_bytes(b"<html>"),
    "wrong type": lambda p: p.write_bytes(p.read_bytes().replace(b'"DepotSync"', b"7")),
    "a list": lambda p: p.write_bytes(b"[]"),
    "1 GiB": huge,
    "nesting 100,000": lambda p: p.write_bytes(b"[" * 100_000 + b"]" * 100_000),
    "NaN": lambda p: p.write_bytes(p.read_bytes().replace(b'"requests": 17', b'"requests": NaN')),
    "a link": other(lambda p: p.symlink_to("/etc/passwd")),
    "a FIFO": other(os.mkfifo),
    "a directory": other(Path.mkdir),
    "bad UTF-8": lambda p: p.write_bytes(p.read_bytes().replace(b"parcel_524", b"parcel\xff524")),
}


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def directory(tmp_path: Path, warned: list[str]) -> StateDirectory:
    return StateDirectory(tmp_path, warn=warned.append).open()


@pytest.fixture
def backend(directory: StateDirectory) -> FileBackend:
    return FileBackend(directory)


def path_of(directory: StateDirectory, record: ExecutionRecord) -> Path:
    return directory.executions / f"{record.file_name}.json"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_set_aside_and_all_else_goes_on(
    backend: FileBackend, directory: StateDirectory, warned: list[str], damage: Callable[[Path], object]
) -> None:
    """D8, for records."""
    damaged, good = backend.create(a_full_record()), backend.create(a_record("Other", status=ExecutionStatus.COMPLETED))
    path = path_of(directory, damaged)
    damage(path)
    assert backend.list() == [good]
    assert backend.load(damaged.execution_id) is None
    assert backend.list("DepotSync") == []
    assert list(backend.orphans()) == []
    assert directory.quarantined == {"record": 1}
    assert [w for w in warned if path.name in w] == warned
    assert len(warned) == 1
    assert len(list(directory.quarantine_directory.iterdir())) == 1
    assert Path("/etc/passwd").exists()


def test_a_record_that_may_not_be_read_stays_where_it_is(directory: StateDirectory, warned: list[str]) -> None:
    """D8, for records."""
    backend = FileBackend(directory)
    hidden, good = backend.create(a_full_record()), backend.create(a_record("Other", status=ExecutionStatus.COMPLETED))
    directory.disk = UnreadableDisk(lambda p: hidden.file_name in p.name)
    assert FileBackend(directory).list() == [good]
    assert path_of(directory, hidden).exists()
    assert len(warned) == 1


def test_a_doubled_id_is_shown_twice_and_found_once(backend: FileBackend, directory: StateDirectory) -> None:
    """D8, for records."""
    record = backend.create(a_full_record())
    path = path_of(directory, record)
    path.with_stem(f"{record.file_name}-2").write_bytes(path.read_bytes())
    found = backend.load(record.execution_id)
    assert found is not None
    assert found.execution_id == record.execution_id
    assert len(backend.list()) == 2


def test_a_newer_record_that_nobody_understands_is_left_alone(
    backend: FileBackend, directory: StateDirectory, warned: list[str]
) -> None:
    """D8, D10."""
    record = backend.create(a_full_record())
    path = path_of(directory, record)
    text = path.read_bytes().replace(b'"0.1.0"', b'"7.0.0"').replace(b'"failed"', b'"dreaming"')
    path.write_bytes(text)
    assert backend.list() == []
    assert path.read_bytes() == text
    assert len(warned) == 1
    assert "7.0.0" in warned[0]


@pytest.mark.parametrize("name", ["notes.json", "x.json.bak", "DepotSync-2024.json", ".hidden.json", "a-b-c"])
def test_files_that_are_no_records_are_none_of_ours(
    backend: FileBackend, directory: StateDirectory, warned: list[str], name: str
) -> None:
    (directory.executions / name).write_text("mine")
    assert backend.list() == []
    assert backend.load("exec_abc123") is None
    assert warned == []
    assert (directory.executions / name).read_text() == "mine"


def test_what_a_quick_save_lost_comes_back_from_the_last_synced_one(
    backend: FileBackend, directory: StateDirectory
) -> None:
    record = backend.create(a_record())
    with running(directory, record):
        backend.save(record, durable=False)
        path_of(directory, record).write_bytes(b"")
        assert backend.load(record.execution_id) == record
        assert path_of(directory, record).read_bytes() == b"", "its owner will write it anew"
    shown = backend.load(record.execution_id)
    assert shown is not None
    assert shown.status is ExecutionStatus.INTERRUPTED
    assert path_of(directory, record).stat().st_size > 100


# --- journals ---


def journal_of(backend: FileBackend, lines: int) -> tuple[ExecutionRecord, Path]:
    record = backend.create(a_record())
    journal = backend.journal(record)
    for n in range(lines):
        journal.append("page", {"n": n}, body=b"[%d]" % n)
    journal.sync()
    journal.close()
    return record, journal.path


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), zeros=st.integers(0, 50))
def test_a_cut_tail_is_dropped_without_a_word(tmp_path_factory: pytest.TempPathFactory, cut: int, zeros: int) -> None:
    """D8, for journals."""
    warned: list[str] = []
    directory = StateDirectory(tmp_path_factory.mktemp("cut"), warn=warned.append).open()
    backend = FileBackend(directory)
    record, path = journal_of(backend, 9)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)] + bytes(zeros))
    journal = backend.journal(record)
    count = len(list(journal.entries()))
    assert count == whole[: cut % len(whole)].count(b"\n")
    last = journal.last("page")
    assert (last.fields["n"] if last else -1) == count - 1
    ref = journal.append("page", {"n": count}, body=b'"next"')
    journal.close()
    again = backend.journal(record)
    assert [e.fields["n"] for e in again.entries()] == list(range(count + 1))
    assert ref is not None
    assert again.read_body(ref) == b'"next"'
    again.close()
    assert warned == []


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_damage_before_good_lines_is_set_aside_and_the_prefix_counts(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    """D8, for journals."""
    warned: list[str] = []
    directory = StateDirectory(tmp_path_factory.mktemp("damage"), warn=warned.append).open()
    backend = FileBackend(directory)
    record, path = journal_of(backend, 9)
    whole = bytearray(path.read_bytes())
    at %= whole.rindex(b"\n", 0, -1) - 40
    whole[at] ^= 1 << bit
    path.write_bytes(whole)
    journal = backend.journal(record)
    entries = list(journal.entries())
    assert [e.fields["n"] for e in entries] == list(range(len(entries)))
    assert len(entries) <= bytes(whole[:at]).count(b"\n")
    assert directory.quarantined["journal"] == 1
    assert [p.read_bytes() for p in directory.quarantine_directory.iterdir()] == [whole]
    journal.append("page", {"n": len(entries)})
    journal.close()
    assert len(list(backend.journal(record).entries())) == len(entries) + 1
    assert len(warned) == 1


@pytest.mark.parametrize("name", ["empty", "NULs", "not JSON", "a list", "1 GiB", "nesting 100,000"])
def test_a_journal_that_is_none_is_an_empty_one(backend: FileBackend, name: str) -> None:
    """D8, for journals."""
    record, path = journal_of(backend, 3)
    DAMAGES[name](path)
    journal = backend.journal(record)
    assert list(journal.entries()) == []
    journal.append("page", {"n": 0})
    journal.sync()
    journal.close()
    assert len(list(backend.journal(record).entries())) == 1
    assert path.stat().st_size < 1000


@pytest.mark.parametrize("name", ["a link", "a FIFO", "a directory"])
def test_a_journal_that_is_no_file_is_set_aside(backend: FileBackend, directory: StateDirectory, name: str) -> None:
    """D8, for journals."""
    record, path = journal_of(backend, 3)
    DAMAGES[name](path)
    assert backend.journal(record).last("page") is None
    journal = backend.journal(record)
    assert list(journal.entries()) == []
    journal.append("page", {"n": 0})
    journal.close()
    assert path.is_file()
    assert directory.quarantined["journal"] == 1


def test_a_good_line_that_is_no_entry_ends_the_prefix(backend: FileBackend, directory: StateDirectory) -> None:
    """D8, for journals."""
    record, path = journal_of(backend, 2)
    path.write_bytes(path.read_bytes() + seal(b'["x"]') + seal(b'{"t":"page","n":2}'))
    journal = backend.journal(record)
    assert len(list(journal.entries())) == 2
    assert directory.quarantined["journal"] == 1
    journal.append("page", {"n": 2})
    journal.close()
    assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(value=JSON_VALUES)
def test_what_was_decoded_comes_back_from_inside_a_journal(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    """D9, for log lines."""
    value = decode(encode(value))
    backend = FileBackend(StateDirectory(tmp_path_factory.mktemp("journal")).open())
    record = backend.create(a_record())
    journal = backend.journal(record)
    ref = journal.append("bind", {"value": value, "body2": [{"body": value}]}, body=encode(value, pretty=True))
    journal.append("bind", {"value": {"t": "x", "body": value}})
    journal.close()
    first, second = backend.journal(record).entries()
    assert encode(first.fields) == encode({"value": value, "body2": [{"body": value}]})
    assert ref is not None
    again = backend.journal(record)
    assert encode(decode(again.read_body(ref))) == encode(value)
    assert encode(second.fields) == encode({"value": {"t": "x", "body": value}})
    again.close()


def test_the_deepest_value_fits_into_a_journal(backend: FileBackend) -> None:
    """D9, for log lines."""
    record = backend.create(a_record())
    journal = backend.journal(record)
    ref = journal.append("memory", {"records": [{"value": deep(250)}]}, body=encode(deep(250)))
    journal.close()
    again = backend.journal(record)
    assert next(again.entries()).fields == {"records": [{"value": deep(250)}]}
    assert ref is not None
    assert decode(again.read_body(ref)) == deep(250)
    again.close()


def test_a_full_journal_takes_what_ends_actions_only(directory: StateDirectory) -> None:
    backend = FileBackend(directory, journal_max=2000)
    record = backend.create(a_record())
    journal = backend.journal(record)
    taken = 0
    while journal.append("page", {"n": taken}, body=b"[1, 2, 3]"):
        taken += 1
    assert journal.full
    journal.append("bind", {"x": 1})
    journal.append("action", {"action": "Load"})
    journal.close()
    again = backend.journal(record)
    assert [e.kind for e in again.entries()] == ["page"] * taken + ["full", "action"]
    assert again.full
    assert again.append("page", {"n": 0}, body=b"1") is None
    assert again.size < 2100
    again.close()


def test_one_thread_appends_while_another_syncs(backend: FileBackend) -> None:
    record = backend.create(a_record())
    journal = backend.journal(record)
    done = threading.Event()

    def sync() -> None:
        while not done.is_set():
            journal.sync()

    thread = threading.Thread(target=sync)
    thread.start()
    refs = []
    for n in range(3000):
        refs.append(journal.append("page", {"n": n}, body=b"[%d]" % n))
        if n % 3 == 0:
            journal.write()
    done.set()
    thread.join()
    journal.close()
    again = backend.journal(record)
    entries = list(again.entries())
    assert [e.fields["n"] for e in entries] == list(range(3000))
    assert [e.body for e in entries] == refs
    assert again.read_body(there(refs[2999])) == b"[2999]"
    again.close()


def test_bodies_are_read_while_the_entries_are(backend: FileBackend) -> None:
    record, _ = journal_of(backend, 50)
    journal = backend.journal(record)
    bodies = [journal.read_body(there(entry.body)) for entry in journal.entries()]
    assert bodies == [b"[%d]" % n for n in range(50)]
    journal.close()
