"""Records in a JSON file."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from reqon.errors import StoreError
from reqon.files import Disk
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore
from reqon.stores.store_file import StoreFile
from reqon.values import decode, encode, equal_json
from tests.support.store_contract import LocalStoreContract, StoreMachine, records
from tests.support.values import JSON_VALUES, deep


class QuickDisk(Disk):
    """Doesn't wait for the platter: for tests that say nothing about power."""

    def sync(self, fd: int, what: str) -> None:
        pass

    def sync_dir(self, path: Path) -> None:
        pass


def open_file(path: Path, *, pretty: bool = True, quarantine: Path | None = None) -> FileStore:
    file = StoreFile(path, pretty=pretty, quarantine=quarantine, disk=QuickDisk())
    file.open(wait_seconds=0)
    return FileStore(path.stem, file)


def content(path: Path) -> dict[str, object]:
    """What a new process would find, in order."""
    store = open_file(path)
    try:
        return dict(zip(store.keys(), store.records(), strict=True))
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stores" / "orders.json"


class TestFileStore(LocalStoreContract):
    @pytest.fixture(params=[True, False], ids=["pretty", "compact"])
    def store(self, path: Path, request: pytest.FixtureRequest) -> Iterator[LocalStore]:
        store = open_file(path, pretty=request.param)
        yield store
        store.close()


class FileMachine(StoreMachine):
    """Beside what all stores do: closing, folding and opening again change nothing, in either layout."""

    def open(self) -> FileStore:
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "s.json"
        return open_file(self.path)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)

    @rule(pretty=st.booleans())
    def reopen_it(self, pretty: bool) -> None:
        position = self.store.position()
        self.store.close()
        if self.path.exists():
            assert equal_json(json.loads(self.path.read_bytes()), self.expected)
        self.store = open_file(self.path, pretty=pretty)
        self.store.counts = self.counts.copy()
        assert self.store.position() >= position

    @rule()
    def fold(self) -> None:
        assert isinstance(self.store, FileStore)
        self.store._file.fold()

    @rule(
        foreign=st.dictionaries(st.text('abc\n"é', min_size=1, max_size=3), records, max_size=4),
        indent=st.integers(0, 4),
    )
    def somebody_edits_the_file(self, foreign: dict[str, dict[str, object]], indent: int) -> None:
        self.store.close()
        self.path.write_text(json.dumps(foreign, indent=indent or None, ensure_ascii=bool(indent % 2)))
        self.store = open_file(self.path)
        self.store.counts = self.counts.copy()
        self.expected = dict(foreign)


TestFileMachine = FileMachine.TestCase
TestFileMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


# --- what lies on the disk --------------------------------------------------------------------------------------------


def test_the_file_is_an_object_that_people_can_read(path: Path) -> None:
    store = open_file(path)
    store.put_many([("b", {"id": "b", "n": 1}), ("a", {})])
    store.close()
    assert path.read_text() == '{\n  "b": {\n    "id": "b",\n    "n": 1\n  },\n  "a": {}\n}\n'


def test_the_compact_form_has_a_line_for_each_record(path: Path) -> None:
    store = open_file(path, pretty=False)
    store.put_many([("b", {"id": "b", "n": 1}), ("a", {})])
    store.close()
    assert path.read_text() == '{\n"b":{"id":"b","n":1},\n"a":{}\n}\n'


def test_files_are_for_their_owner_only(path: Path) -> None:
    store = open_file(path)
    store.put("a", {})
    store.close()
    assert {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()} == dict.fromkeys(
        ("orders.json", "orders.log", "orders.lock"), 0o600
    )


def test_reading_writes_nothing(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('[{"id":1}]')
    store = open_file(path)
    assert store.get("1") == {"id": 1}
    store.put("1", {"id": 1})
    store.close()
    assert path.read_text() == '[{"id":1}]'
    assert not path.with_suffix(".log").exists()


def test_an_array_takes_its_keys_from_the_ids_and_becomes_an_object(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('[{"id":1},{"id":2.0},{"id":"x"},{"id":true},{"n":5},{"id":null}]')
    store = open_file(path)
    assert store.keys() == ["1", "2", "x", "true", "auto_4", "auto_5"]
    store.put("1", {"id": 1, "new": True})
    store.close()
    shown = json.loads(path.read_text())
    assert list(shown) == ["1", "2", "x", "true", "auto_4", "auto_5"]
    assert shown["1"] == {"id": 1, "new": True}


def test_numbers_rise_over_folds_and_openings(path: Path) -> None:
    for number in range(1, 4):
        store = open_file(path)
        assert store.position() == number - 1
        store.put("a", {"n": number})
        assert store.position() == number - 1
        store.flush()
        store.flush()
        assert store.position() == number
        store.close()


def test_the_log_is_folded_when_it_outgrows_the_file(path: Path) -> None:
    store = open_file(path)
    for number in range(3000):
        store.put("a", {"n": number, "text": "x" * 1000})
        store.sync()
        store.fold_if_long(None if number % 2 else store.position())
        assert path.with_suffix(".log").stat().st_size < (1 << 20) + 2000
    assert path.exists()
    store.close()


def test_what_no_journal_relies_on_yet_is_not_folded(path: Path) -> None:
    """A resume forgets lines behind the last place of its journal; what is in the snapshot would stay."""
    store, log = open_file(path), path.with_suffix(".log")
    for number in range(1200):
        store.put("a", {"n": number, "text": "x" * 1000})
        store.sync()
        store.fold_if_long(store.position() - 1)
    assert not path.exists()
    store.put("b", {"n": 1})
    store.fold_if_long(store.position())
    assert not path.exists(), "it would write what is in no line yet"
    store.flush()
    store.fold_if_long(store.position())
    assert path.exists()
    assert log.stat().st_size < 100
    for number in range(40):
        store.put("a", {"n": number, "text": "x" * 1_000_000})
        store.flush()
        store.fold_if_long(0)
        if number == 14:
            assert path.stat().st_size < 10_000
    assert path.stat().st_size > 1_000_000, "a log has an end all the same"
    store.close()


def test_a_large_batch_does_not_wait_in_memory(path: Path) -> None:
    store = open_file(path)
    store.put_many([(str(n), {"text": "x" * 1000}) for n in range(20_000)])
    assert path.with_suffix(".log").stat().st_size > 8_000_000
    store.close()
    assert len(content(path)) == 20_000


def test_a_file_that_was_taken_away_leaves_an_empty_store_that_nothing_can_rely_on(path: Path) -> None:
    store = open_file(path)
    for number in range(3):
        store.put("a", {"n": number})
        store.flush()
    store.close()
    path.unlink()
    store = open_file(path)
    assert (store.count(), store.position()) == (0, 0)
    assert "is gone" in store.warnings[0]
    store.close()


def test_a_second_process_waits_and_names_the_owner(path: Path) -> None:
    store = open_file(path)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on ") as caught:
        open_file(path)
    assert (caught.value.operation, caught.value.exit_code) == ("init", 3)
    store.close()
    open_file(path).close()


def test_two_users_of_a_file_count_for_themselves(path: Path) -> None:
    file = StoreFile(path)
    file.open()
    first, second = FileStore("a", file), FileStore("a", file)
    first.put("x", {"n": 1})
    second.put("x", {"n": 2})
    assert first.get("x") == {"n": 2}
    assert (first.counts.added, second.counts.added, second.counts.updated) == (1, 0, 1)
    first.close()


def test_a_refused_write_names_the_store_and_loses_nothing(path: Path) -> None:
    store = open_file(path)
    store.put("a", {"n": 1})
    with pytest.raises(StoreError, match=r"orders\.json: cannot be written as JSON") as caught:
        store.put("b", {"text": "\ud800"})
    assert (caught.value.key, caught.value.operation) == ("b", "set")
    assert store.keys() == ["a"]
    store.close()


def test_a_thread_that_syncs_loses_nothing_that_another_writes(path: Path) -> None:
    store = open_file(path)
    done = threading.Event()

    def keep_syncing() -> None:
        while not done.is_set():
            store.sync()
            store._file.fold()

    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(keep_syncing)
        try:
            for number in range(3000):
                store.put(f"k{number % 1000}", {"n": number})
                assert store.get(f"k{number % 1000}") == {"n": number}
        finally:
            done.set()
        syncing.result(10)
    store.close()
    assert content(path) == {f"k{n}": {"n": 2000 + n} for n in range(1000)}


@settings(max_examples=100, deadline=None)
@given(values=st.lists(JSON_VALUES, min_size=1, max_size=4), pretty=st.booleans(), in_log=st.booleans())
def test_what_was_decoded_comes_back_from_a_store(values: list[object], pretty: bool, in_log: bool) -> None:
    """D9, for stores: from the lines of the log, and from the file that they are folded into."""
    values = [decode(encode(value)) for value in values]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.json"
        comes_back({f"k{n}": value for n, value in enumerate(values)}, path, pretty=pretty, in_log=in_log)


@pytest.mark.parametrize("in_log", [True, False])
def test_the_deepest_value_fits_into_a_store(path: Path, in_log: bool) -> None:
    """D9, for stores."""
    comes_back({"deep": deep(250)}, path, pretty=True, in_log=in_log)


def comes_back(values: dict[str, object], path: Path, *, pretty: bool, in_log: bool) -> None:
    store = open_file(path, pretty=pretty)
    for key, value in values.items():
        store.put(key, {"id": key, "value": value, "list": [value]})
    store.flush()
    if not in_log:
        store.fold()
    # As whoever comes after a kill finds it: what a close would write is not there yet.
    copied = path.with_name("copied.json")
    for one in (path, path.with_suffix(".log")):
        if one.exists():
            shutil.copy(one, copied.with_suffix(one.suffix))
    store.close()
    for found in (content(copied), content(path)):
        kept = {key: encode({"id": key, "value": value, "list": [value]}) for key, value in values.items()}
        assert {key: encode(record) for key, record in found.items()} == kept
