"""Missions that keep their executions elsewhere: in one database, or in a store of the user's own."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon import (
    ConfigurationError,
    ExecutionStatus,
    StateError,
    clear_sync_checkpoints,
    execute,
    get_execution_history,
    get_execution_state,
    set_state_store,
)
from tests.support.orders_api import OrdersApi
from tests.support.own_state_stores import BrokenStore, FullStore, SmallStore
from tests.support.processes import Process, reqon

MISSION = """
mission Customers {
  OPTIONS
  source Shop { auth: none, base: env("SHOP_URL"), retry: { maxAttempts: 1 } }
  store customers: file("customers")
  action List {
    get "/customers" { params: { per_page: 30 }, paginate: page(page, 30), until: response.page >= response.pages }
  }
  action Visit {
    for customer in response.customers checkpoint every 1 {
      get "/customers/{customer.id}"
      store response -> customers { key: .id }
    }
  }
  run List then Visit
}
"""


def mission(options: str = "") -> str:
    return MISSION.replace("OPTIONS", options)


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=60) as running:
        yield running


@pytest.fixture
def options(api: OrdersApi, tmp_path: Path) -> Any:
    return {"environment": {"SHOP_URL": api.url}, "state_dir": tmp_path / "state"}


@pytest.fixture(params=[FullStore, SmallStore])
def own(request: pytest.FixtureRequest) -> Iterator[Any]:
    store = request.param()
    set_state_store(store, name="vault")
    yield store
    set_state_store(None, name="vault")


def visits(api: OrdersApi) -> list[str]:
    return [r["path"] for r in api.requests("/customers/")]


@pytest.mark.parametrize("store", ["file", "sqlite", "vault"])
async def test_a_failed_run_is_resumed_from_any_store(api: OrdersApi, options: Any, own: Any, store: str) -> None:
    text = mission(f"stateStore: {store}")
    api.fail(500, "/customers/cust_0040")
    first = await execute(text, **options)
    assert not first.success
    second = await execute(text, resume=True, **options)
    assert second.success, second.errors
    assert second.execution_id == first.execution_id
    assert second.stores["customers"].count == 60
    seen = visits(api)
    assert len(seen) == 61
    assert seen.count("/customers/cust_0040") == 2
    (state,) = await get_execution_history(state_dir=options["state_dir"])
    assert state.status is ExecutionStatus.COMPLETED
    assert state.attempt == 2
    if store == "vault":
        assert own.states[first.execution_id]["status"] == "completed"
        assert own.states[first.execution_id]["itemsProcessed"] == 60


async def test_the_command_line_finds_what_lies_in_sqlite(api: OrdersApi, tmp_path: Path) -> None:
    file = tmp_path / "customers.vague"
    file.write_text(mission("stateStore: sqlite"))
    assert reqon(file, cwd=tmp_path, SHOP_URL=api.url).code == 0
    state = tmp_path / ".vague-data"
    assert list((state / "execution").iterdir()) == []
    shown = reqon("status", "Customers", "--json", cwd=tmp_path).json
    assert shown["status"] == "completed"
    assert [r["executionId"] for r in reqon("history", "--json", cwd=tmp_path).json] == [shown["executionId"]]
    assert reqon("history", "--json", "--state-store", "file", cwd=tmp_path).json == []
    assert reqon("status", "Customers", "--json", "--state-store", "sqlite", cwd=tmp_path).json == shown
    ended = reqon("history", "--state-store", "nowhere", cwd=tmp_path)
    assert ended.code == 3
    assert "there is no state store 'nowhere'" in ended.err
    assert reqon("cleanup", "Customers", "--all", "--yes", "--json", cwd=tmp_path).json["deleted"] == [
        shown["executionId"]
    ]
    assert reqon("history", "--json", cwd=tmp_path).json == []


async def test_a_state_store_can_be_ordered_for_all_missions(api: OrdersApi, tmp_path: Path) -> None:
    file = tmp_path / "customers.vague"
    file.write_text(mission("stateStore: file"))
    assert reqon(file, "--state-store", "sqlite", cwd=tmp_path, SHOP_URL=api.url).code == 0
    assert list((tmp_path / ".vague-data" / "execution").iterdir()) == []
    assert len(reqon("history", "--json", cwd=tmp_path).json) == 1


async def test_a_killed_run_goes_on_from_sqlite(api: OrdersApi, tmp_path: Path) -> None:
    """R1."""
    file = tmp_path / "customers.vague"
    file.write_text(mission("stateStore: sqlite"))
    api.hold("/customers/", at=25)
    with Process([file], cwd=tmp_path, variables={"SHOP_URL": api.url}) as process:
        assert api.reached.wait(20)
        process.signal(signal.SIGKILL)
        process.wait()
    api.release()
    interrupted = reqon("status", "Customers", "--json", cwd=tmp_path).json
    assert interrupted["status"] == "interrupted"
    assert interrupted["activeStep"]["index"] == 24
    assert reqon(file, "--resume", cwd=tmp_path, SHOP_URL=api.url).code == 0
    assert len(visits(api)) == 61
    assert len(set(visits(api))) == 60


def test_a_store_that_nobody_registered_is_an_error_of_the_text(api: OrdersApi, tmp_path: Path) -> None:
    file = tmp_path / "customers.vague"
    file.write_text(mission("stateStore: vault"))
    assert reqon(file, cwd=tmp_path, SHOP_URL=api.url).code == 2


async def test_a_store_without_a_name_serves_missions_that_say_nothing(api: OrdersApi, options: Any) -> None:
    store = FullStore()
    set_state_store(store)
    try:
        result = await execute(mission(), **options)
        assert list(store.states) == [result.execution_id]
        assert store.journals == {}
        in_file = await execute(mission("stateStore: file"), **options)
        assert list(store.states) == [result.execution_id]
        assert (
            await get_execution_state("Customers", result.execution_id, state_dir=options["state_dir"]) == result.state
        )
        assert await get_execution_state("Customers", state_dir=options["state_dir"]) == in_file.state
    finally:
        set_state_store(None)


async def test_sync_checkpoints_live_in_a_store_that_can(options: Any, own: Any) -> None:
    text = """
    mission Recent {
      stateStore: vault
      source Shop { auth: none, base: env("SHOP_URL") }
      store orders: memory("orders")
      action Fetch {
        get "/orders" { params: { limit: 5 }, since: lastSync }
        store response.orders -> orders { key: .id }
      }
      run Fetch
    }
    """
    if isinstance(own, SmallStore):
        with pytest.raises(ConfigurationError, match=r"'vault' has no get_sync\(key\)"):
            await execute(text, **options)
        return
    assert (await execute(text, **options)).success
    assert own.sync["Shop-/orders"]["mission"] == "Recent"
    assert not (options["state_dir"] / "sync-checkpoints.json").exists()
    assert await clear_sync_checkpoints(state_dir=options["state_dir"]) == 1
    assert own.sync == {}


@pytest.mark.parametrize("store", ["file", "sqlite", "vault"])
async def test_old_executions_go_and_the_run_itself_stays(options: Any, own: Any, store: str) -> None:
    text = mission(f"stateStore: {store}, stateRetention: 1 ms")
    if store == "vault" and isinstance(own, SmallStore):
        with pytest.raises(ConfigurationError, match=r"has no delete\(id\): stateRetention cannot be kept"):
            await execute(text, **options)
        return
    for _ in range(3):
        result = await execute(text, **options)
        assert result.success
    kept = await get_execution_history(state_dir=options["state_dir"])
    assert [record.execution_id for record in kept] == [result.execution_id]


async def test_a_store_that_is_down_fails_the_run_before_it_begins(api: OrdersApi, options: Any) -> None:
    set_state_store(BrokenStore(), name="down")
    try:
        with pytest.raises(StateError, match=r"the state store 'down' failed in save\(\)"):
            await execute(mission("stateStore: down"), **options)
        assert api.requests() == []
    finally:
        set_state_store(None, name="down")
