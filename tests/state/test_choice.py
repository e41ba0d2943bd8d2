from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reqon.errors import ConfigurationError, StateError
from reqon.state.backend import StateBackend, SyncCheckpoint
from reqon.state.choice import StateStores
from reqon.state.custom import set_state_store
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from reqon.state.recovery import recover
from tests.support.own_state_stores import FullStore, SmallStore
from tests.support.state_contract import T0, StateContract, a_full_record, a_record, running, there


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state").open()


@pytest.fixture
def own() -> Iterator[FullStore]:
    store = FullStore()
    set_state_store(store, name="vault")
    yield store
    set_state_store(None, name="vault")


class TestAllAsOne(StateContract):
    @pytest.fixture
    def backend(self, directory: StateDirectory) -> Iterator[StateBackend]:
        stores = StateStores(directory)
        stores.of("Elsewhere", "sqlite")
        yield stores
        stores.close()


class TestOnlySqlite(StateContract):
    @pytest.fixture
    def backend(self, directory: StateDirectory) -> Iterator[StateBackend]:
        stores = StateStores(directory, only="sqlite")
        yield stores
        stores.close()


def test_missions_of_several_stores_are_seen_together(directory: StateDirectory, own: FullStore) -> None:
    stores = StateStores(directory)
    made = []
    for n, name in enumerate(["file", "sqlite", "vault"]):
        record = a_record(f"In{name}", at=T0 + timedelta(hours=n), status=ExecutionStatus.COMPLETED)
        made.append(stores.of(record.mission, name).create(record))
    stores.close()
    again = StateStores(directory)
    assert again.list() == made[::-1]
    assert again.list(limit=2) == made[:0:-1]
    assert list(again.latest()) == sorted(made, key=lambda record: record.mission)
    for record in made:
        assert again.load(record.execution_id) == record
        again.save(replace(record, attempt=2))
        assert there(again.load(record.execution_id)).attempt == 2
        assert again.delete(record) > 0
    assert again.list() == []
    assert own.states == {}
    again.close()


def test_a_mission_that_changes_its_store_keeps_its_history_and_its_sync_checkpoints(directory: StateDirectory) -> None:
    stores = StateStores(directory)
    done = ExecutionStatus.COMPLETED
    old = stores.of("DepotSync").create(a_record(status=done))
    stores.put_sync("DepotSync", {"Depot-/parcels": SyncCheckpoint(T0, 7, None)})
    backend = stores.of("DepotSync", "sqlite")
    assert dict(backend.sync_checkpoints("DepotSync")) == {"Depot-/parcels": SyncCheckpoint(T0, 7, "DepotSync")}
    new = backend.create(a_record(at=T0 + timedelta(hours=1), status=done))
    assert StateStores(directory).list("DepotSync") == [new, old]
    back = stores.of("DepotSync", "file")
    assert dict(back.sync_checkpoints("DepotSync")) == {"Depot-/parcels": SyncCheckpoint(T0, 7, "DepotSync")}
    assert StateStores(directory).list("DepotSync") == [new, old]
    assert StateStores(directory, only="sqlite").list() == [new]
    stores.close()


def test_only_what_is_not_the_default_is_written_down(directory: StateDirectory) -> None:
    stores = StateStores(directory)
    stores.of("A")
    assert not directory.state_stores.exists()
    stores.of("B", "sqlite")
    assert directory.state_stores.read_text() == (
        '{\n  "B": {\n    "store": "sqlite",\n    "before": [\n      "file"\n    ]\n  }\n}\n'
    )
    stores.close()


def test_dead_owners_are_found_in_every_store(directory: StateDirectory, own: FullStore) -> None:
    stores = StateStores(directory)
    made = [stores.of(name, name).create(a_record(name)) for name in ("file", "sqlite", "vault")]
    with running(directory, made[0]):
        assert {r.mission for r in recover(stores, directory)} == {"sqlite", "vault"}
    assert {r.mission for r in recover(stores, directory)} == {"file"}
    assert {state["status"] for state in own.states.values()} == {"interrupted"}
    stores.close()


def test_a_store_that_this_program_does_not_know_is_told_once(
    directory: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    set_state_store(SmallStore(), name="vault")
    StateStores(directory).of("A", "vault").create(a_full_record())
    set_state_store(None, name="vault")
    stores = StateStores(directory)
    assert stores.list() == []
    assert list(stores.latest()) == []
    assert [r.message for r in caplog.records] == [
        "some executions are kept in the state store 'vault', which only the program that registers it can read"
    ]
    with pytest.raises(ConfigurationError, match="there is no state store 'vault'"):
        stores.of("A", "vault")
    stores.close()


def test_postgres_without_a_url_is_refused(directory: StateDirectory) -> None:
    with pytest.raises(ConfigurationError, match="REQON_STATE_URL"):
        StateStores(directory, environment={}).choose("postgres")


def test_a_store_that_cannot_be_reached_hides_none_of_the_others(
    directory: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    stores = StateStores(directory, environment={"REQON_STATE_URL": "postgresql://127.0.0.1:1/none"})
    here = stores.of("DepotSync").create(a_record(status=ExecutionStatus.COMPLETED))
    stores.of("Shared", "postgres")
    assert '"urlFrom": "REQON_STATE_URL"' in directory.state_stores.read_text()
    for looking in (stores, StateStores(directory, environment={})):
        assert looking.list() == list(looking.latest()) == [here]
        assert looking.load(here.execution_id) == here
        assert list(looking.orphans()) == []
    said = [r.message for r in caplog.records]
    assert [message.partition(": ")[0] for message in said] == [
        "executions in the state store 'postgres' are not seen"
    ] * 2
    with pytest.raises(StateError, match="PostgreSQL none"):
        stores.of("Shared", "postgres").list()


def test_a_damaged_memory_of_stores_is_set_aside_and_nothing_is_lost(
    directory: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    stores = StateStores(directory)
    record = stores.of("DepotSync", "sqlite").create(a_record(status=ExecutionStatus.COMPLETED))
    directory.state_stores.write_text("{")
    assert StateStores(directory).list() == [record]
    assert "moved to" in caplog.text
    stores.close()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    stores = StateStores(StateDirectory(tmp_path / "absent"))
    assert stores.list() == []
    assert list(stores.latest()) == []
    assert stores.load("exec_abc123") is None
    assert list(tmp_path.iterdir()) == []


def test_clearing_sync_checkpoints_reaches_every_store(directory: StateDirectory, own: FullStore) -> None:
    stores = StateStores(directory)
    for name in ("file", "sqlite", "vault"):
        stores.of(name, name).put_sync(name, {"key": SyncCheckpoint(T0, 1, None)})
    assert stores.clear_sync(None) == 3
    assert own.sync == {}
    stores.close()
