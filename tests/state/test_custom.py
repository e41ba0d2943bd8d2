import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from reqon.errors import ConfigurationError, StateError
from reqon.state.backend import StateBackend, SyncCheckpoint
from reqon.state.compaction import Compacting
from reqon.state.custom import CustomBackend, CustomStore, default_state_store, registered_state_stores, set_state_store
from reqon.state.directory import StateDirectory, StateWriteError
from reqon.state.records import ExecutionStatus, Owner
from tests.support.own_state_stores import BrokenStore, FullStore, SmallStore
from tests.support.state_contract import T0, StateContract, a_full_record, a_record, running, there


class TestAStoreThatCanDoEverything(StateContract):
    shows_where_it_runs = False

    @pytest.fixture
    def own(self) -> FullStore:
        return FullStore()

    @pytest.fixture
    def backend(self, directory: StateDirectory, own: FullStore) -> Iterator[StateBackend]:
        store = CustomStore("vault", own)
        backend = CustomBackend(directory, store)
        yield backend
        backend.close()
        store.close()

    def test_nothing_but_locks_lies_on_this_disk(
        self, backend: StateBackend, own: FullStore, directory: StateDirectory
    ) -> None:
        record = backend.create(a_full_record())
        journal = backend.journal(record)
        journal.append("page", {"n": 1}, body=b"[1]")
        journal.close()
        backend.put_sync("A", {"k": SyncCheckpoint(T0, 1, None)})
        assert list(directory.executions.iterdir()) == []
        assert not directory.sync_checkpoints.exists()
        assert not directory.database.exists()
        assert own.states[record.execution_id]["status"] == "failed"
        assert own.journals[record.execution_id] == [{"n": 0, "kind": "page", "fields": {"n": 1}, "body": "[1]"}]
        assert own.sync == {"k": {"lastSync": "2024-03-01T08:15:00.412Z", "itemsSynced": 1, "mission": "A"}}

    def test_all_its_methods_are_called_in_one_thread(self, backend: StateBackend, own: FullStore) -> None:
        record = backend.create(a_record(status=ExecutionStatus.COMPLETED))
        for _ in range(20):
            backend.save(record, durable=False)
        backend.list()
        assert len(own.threads) == 1

    def test_an_entry_that_was_appended_twice_counts_once(self, backend: StateBackend, own: FullStore) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        for n in range(3):
            journal.append("bind", {"n": n})
        journal.write()
        own.journals[record.execution_id] += own.journals[record.execution_id][:2]
        assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1, 2]

    def test_entries_that_come_while_others_are_being_written_are_kept(
        self, backend: StateBackend, own: FullStore
    ) -> None:
        """A checkpoint writes in a thread of its own while the run goes on."""
        record = backend.create(a_record())
        journal = backend.journal(record)
        take, others = own.append, [1, 2]

        def slow_append(execution_id: str, entries: list[dict[str, object]]) -> None:
            if others:
                journal.append("bind", {"n": others.pop(0)})
            take(execution_id, entries)

        own.append = slow_append  # type: ignore[method-assign]
        journal.append("bind", {"n": 0})
        for _ in range(3):
            journal.write()
        assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1, 2]

    def test_entries_that_a_store_refused_are_written_later(self, backend: StateBackend, own: FullStore) -> None:
        record = backend.create(a_record())
        journal = backend.journal(record)
        take = own.append

        def refuse(execution_id: str, entries: list[dict[str, object]]) -> None:
            raise ConnectionError("gone")

        own.append = refuse  # type: ignore[method-assign]
        journal.append("bind", {"n": 0})
        with pytest.raises(StateWriteError, match="gone"):
            journal.write()
        own.append = take  # type: ignore[method-assign]
        journal.append("bind", {"n": 1})
        journal.write()
        assert [e.fields["n"] for e in backend.journal(record).entries()] == [0, 1]

    @pytest.mark.parametrize("again", [False, True], ids=["in one run", "after a resume"])
    def test_what_later_entries_made_useless_is_forgotten(
        self, directory: StateDirectory, own: FullStore, again: bool
    ) -> None:
        store = CustomStore("vault", own)
        backend = CustomBackend(directory, store, journal_max=40_000)
        record = backend.create(a_record())
        journal = backend.journal(record)
        ref = journal.append("page", {"i": 0}, body=b"[1, 2]")
        assert ref is not None
        for index in range(2000):
            fields = {"a": "0/Load", "p": "l1", "i": index, "n": {"rows": index}}
            journal.append("progress", fields)
            journal.write()
            if index % 100 == 99:
                if again:
                    journal.close()
                    journal = backend.journal(record)
                    assert len(list(journal.entries())) < 1000
                assert isinstance(journal, Compacting)
                journal.compact({"rows": index - 50})
        assert not journal.full
        left = [e.fields["i"] for e in backend.journal(record).entries()]
        assert left[0] == 0, "the page"
        assert 1949 in left, "the last place that survives a power loss"
        assert left[-1] == 1999
        assert len(left) < 500
        assert journal.read_body(ref) == b"[1, 2]"
        store.close()

    def test_a_store_that_cannot_forget_keeps_every_entry(self, directory: StateDirectory, own: FullStore) -> None:
        own.forget = None  # type: ignore[method-assign,assignment]
        store = CustomStore("vault", own)
        backend = CustomBackend(directory, store, journal_max=40_000)
        journal = backend.journal(backend.create(a_record()))
        assert isinstance(journal, Compacting)
        for index in range(200):
            journal.append("progress", {"a": "0/Load", "p": "l1", "i": index, "n": {}})
            journal.write()
            journal.compact({})
        assert len(list(journal.entries())) == 200
        store.close()


class TestAStoreThatSavesAndLoads:
    @pytest.fixture
    def own(self) -> SmallStore:
        return SmallStore()

    @pytest.fixture
    def directory(self, tmp_path_factory: pytest.TempPathFactory) -> StateDirectory:
        return StateDirectory(tmp_path_factory.mktemp("own") / "state").open()

    @pytest.fixture
    def backend(self, directory: StateDirectory, own: SmallStore) -> Iterator[CustomBackend]:
        store = CustomStore("vault", own)
        backend = CustomBackend(directory, store)
        yield backend
        backend.close()
        store.close()

    def test_its_history_comes_from_the_index_beside_it(self, backend: CustomBackend) -> None:
        done = ExecutionStatus.COMPLETED
        made = [backend.create(a_record(at=T0 + timedelta(hours=n), status=done)) for n in range(5)]
        other = backend.create(a_record("Other", at=T0 + timedelta(days=1), status=ExecutionStatus.FAILED))
        assert backend.list() == [other, *reversed(made)]
        assert backend.list("DepotSync", limit=2) == [made[4], made[3]]
        assert backend.list(status=ExecutionStatus.FAILED) == [other]
        assert backend.list(since=T0 + timedelta(hours=4)) == [other, made[4]]
        assert backend.list(before=T0 + timedelta(hours=1)) == [made[0]]
        assert list(backend.latest()) == [made[4], other]

    def test_many_executions_are_listed_page_by_page(self, backend: CustomBackend) -> None:
        made = [backend.create(a_record(at=T0 + timedelta(seconds=n))) for n in range(201)]
        assert [r.execution_id for r in backend.list()] == [r.execution_id for r in reversed(made)]

    def test_its_journals_stay_on_this_disk(self, backend: CustomBackend, directory: StateDirectory) -> None:
        record = backend.create(a_record())
        with running(directory, record):
            journal = backend.journal(record)
            journal.append("progress", {"a": "0/Load", "i": 17})
            journal.close()
            assert there(backend.load(record.execution_id)).status is ExecutionStatus.RUNNING
        shown = there(backend.load(record.execution_id))
        assert shown.status is ExecutionStatus.INTERRUPTED
        assert there(shown.active_step).index == 17
        assert backend.orphans() == [record]
        assert [path.suffix for path in directory.executions.iterdir()] == [".journal"]

    def test_what_it_lacks_is_refused_by_name(self, backend: CustomBackend) -> None:
        record = backend.create(a_full_record())
        with pytest.raises(ConfigurationError, match=r"the state store 'vault' has no delete\(id\)"):
            backend.delete(record)
        with pytest.raises(ConfigurationError, match=r"no delete\(id\): stateRetention cannot be kept"):
            backend.check(retention=True)
        with pytest.raises(ConfigurationError, match=r"no get_sync\(key\): the sync checkpoints of mission 'A'"):
            backend.sync_checkpoints("A")
        assert backend.list() == [record]

    def test_a_record_that_its_owner_spoilt_is_passed_over(
        self, backend: CustomBackend, own: SmallStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        good, bad = backend.create(a_full_record()), backend.create(a_full_record())
        own.states[bad.execution_id]["status"] = 7
        assert backend.list() == [good]
        assert backend.list() == [good]
        assert len(caplog.records) == 1
        assert "in the state store 'vault' is no execution record" in caplog.text


def test_a_store_that_fails_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = StateDirectory(tmp_path_factory.mktemp("own") / "state").open()
    store = CustomStore("vault", BrokenStore())
    backend = CustomBackend(directory, store)
    with pytest.raises(StateWriteError, match=r"'vault' failed in save\(\): ConnectionRefusedError: no database"):
        backend.create(a_record())
    assert directory.write_errors == 1
    backend.close()
    store.close()


def test_a_store_that_never_answers_is_not_waited_for_for_ever() -> None:
    """X3."""
    answers = threading.Event()

    class Hung:
        def save(self, state: dict[str, object]) -> None:
            pass

        def load(self, execution_id: str) -> None:
            answers.wait(60)

    store = CustomStore("hung", Hung(), seconds=0.2)
    try:
        with pytest.raises(StateError, match=r"'hung' has not answered load\(\) for 0.2 s"):
            store.call("load", "exec_a")
        with pytest.raises(StateError, match="load"):  # what comes later waits behind it, and no longer either
            store.call("load", "exec_b")
    finally:
        answers.set()
        store.close()


def test_progress_that_cannot_be_saved_only_warns(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    directory = StateDirectory(tmp_path_factory.mktemp("own") / "state").open()
    store = CustomStore("vault", BrokenStore())
    backend = CustomBackend(directory, store)
    backend.save(a_record(), durable=False)
    backend.close()
    store.close()
    assert "failed in save(): ConnectionRefusedError: no database" in caplog.text


class OnlyLoad:
    def load(self, execution_id: str) -> None: ...


class HalfAJournal(SmallStore):
    def append(self, execution_id: str, entries: object) -> None: ...


class HalfASync(SmallStore):
    def get_sync(self, key: str | None) -> None: ...


@pytest.mark.parametrize(
    ("store", "missing"),
    [(OnlyLoad(), r"save\(state\)"), (HalfAJournal(), r"replay\(id\)"), (HalfASync(), r"put_sync\(changes\)")],
)
def test_a_store_without_what_it_needs_is_refused_at_once(store: object, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the state store 'vault' has no {missing}"):
        set_state_store(store, name="vault")
    assert "vault" not in registered_state_stores()


@pytest.mark.parametrize("name", ["file", "postgres", "sqlite", "a-b", ""])
def test_a_store_cannot_take_every_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a state store"):
        set_state_store(SmallStore(), name=name)


def test_without_a_name_it_is_for_all_missions_that_say_nothing() -> None:
    set_state_store(SmallStore())
    assert default_state_store() == "custom"
    set_state_store(SmallStore())
    set_state_store(None)
    assert default_state_store() == "file"
    assert registered_state_stores() == {}


# --- leases ---


@pytest.fixture
def two_machines(tmp_path: Path) -> Iterator[tuple[FullStore, CustomBackend, CustomBackend]]:
    """One store that two state directories share."""
    own = FullStore()
    store = CustomStore("vault", own)
    one, two = (CustomBackend(StateDirectory(tmp_path / name).open(), store) for name in ("one", "two"))
    yield own, one, two
    one.close()
    two.close()
    store.close()


def test_a_live_owner_elsewhere_is_seen_by_its_lease(
    two_machines: tuple[FullStore, CustomBackend, CustomBackend],
) -> None:
    """R2."""
    own, one, two = two_machines
    assert one.leases
    owner = Owner(host="depot", pid=1, instance=one.directory.named())
    record = one.create(a_record(owner=owner))
    assert one.lease(record.mission, owner.instance, 60.0)
    assert not two.lease(record.mission, two.directory.named(), 60.0)
    assert there(two.load(record.execution_id)).status is ExecutionStatus.RUNNING
    assert list(two.orphans()) == []
    with pytest.raises(StateError, match="running elsewhere"):
        two.delete(record)
    assert there(one.load(record.execution_id)).status is ExecutionStatus.INTERRUPTED, "here the lock says so at once"
    own.leases[record.mission] = (owner.instance, 0.0)
    assert there(two.load(record.execution_id)).status is ExecutionStatus.INTERRUPTED
    assert [r.execution_id for r in two.orphans()] == [record.execution_id]


def test_a_store_without_leases_is_one_machines_own(tmp_path: Path) -> None:
    store = CustomStore("small", SmallStore())
    backend = CustomBackend(StateDirectory(tmp_path).open(), store)
    assert not backend.leases
    assert backend.lease("DepotSync", "anyone", 60.0)
    backend.close()
    store.close()
