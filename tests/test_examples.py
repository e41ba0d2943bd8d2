"""The example missions pass every check without a warning, run against the example shop, and run again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon.extensions import registered
from reqon.http.openapi.loading import Specifications
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram
from reqon.runner import Outcome, Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from tests.support.orders_api import OrdersApi

MISSIONS = Path(__file__).parents[1] / "examples" / "missions"
NAMES = sorted(path.stem for path in MISSIONS.glob("*.vague"))


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi() as running:
        yield running


def mission(name: str) -> MissionProgram:
    program = load([MISSIONS / f"{name}.vague"], known=registered(Specifications))
    assert program.all_diagnostics == ()
    return program.missions[0]


async def run(name: str, api: OrdersApi, state: Path) -> Outcome:
    program = mission(name)
    runner = Runner(RunnerSettings(state_directory=state), environment={"SHOP_URL": api.url})
    try:
        request = RunRequest(mission=program.name, path=str(program.path), definition_hash=program.definition_hash)
        return await runner.execute(runner.plan(program), request)
    finally:
        await runner.close()


def stored(state: Path, name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((state / "stores" / f"{name}.json").read_bytes())
    return found


def test_the_folder_loads_as_a_whole() -> None:
    program = load([MISSIONS], known=registered(Specifications))
    assert program.all_diagnostics == ()
    assert len(program.missions) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_a_mission_completes_and_a_second_run_changes_nothing(name: str, api: OrdersApi, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = await run(name, api, tmp_path)
        assert outcome.success, [error.format() for error in outcome.errors]
        before = {path.name: path.read_bytes() for path in (tmp_path / "stores").glob("[!r]*.json")}
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "stores").glob("[!r]*.json")}


async def test_customers_are_all_there(api: OrdersApi, tmp_path: Path) -> None:
    await run("customers", api, tmp_path)
    assert list(stored(tmp_path, "customers")) == list(api.customers())


async def test_orders_follow_what_changes_and_set_aside_what_is_wrong(api: OrdersApi, tmp_path: Path) -> None:
    await run("orders", api, tmp_path)
    good = {key for key, order in api.orders().items() if order["customer_id"]}
    assert stored(tmp_path, "orders").keys() == good
    assert stored(tmp_path, "rejected-orders").keys() == api.orders().keys() - good
    before = len(api.requests("/orders"))
    touched = api.touch(3)
    outcome = await run("orders", api, tmp_path)
    assert outcome.record.items_processed == 3
    assert len(api.requests("/orders")) == before + 1
    kept = stored(tmp_path, "orders")
    assert all(kept[key]["modified"] == api.orders()[key]["modified_at"] for key in touched)


async def test_orders_survive_a_shop_in_trouble(api: OrdersApi, tmp_path: Path) -> None:
    api.fail(503, "/orders", times=2)
    assert (await run("orders", api, tmp_path)).success
    api.fail(401, "/orders")
    outcome = await run("orders", api, tmp_path)
    assert [error.message for error in outcome.record.errors] == ["the shop does not know us: check the credentials"]


async def test_addresses_are_fetched_for_active_customers_only(api: OrdersApi, tmp_path: Path) -> None:
    api.fail(404, "/customers/cust_0002")
    outcome = await run("addresses", api, tmp_path)
    assert outcome.success
    active = {key for key, customer in api.customers().items() if customer["active"]}
    assert stored(tmp_path, "addresses").keys() == active - {"cust_0002"}
    assert stored(tmp_path, "missing-customers").keys() == {"cust_0002"}


async def test_nightly_reminds_once(api: OrdersApi, tmp_path: Path) -> None:
    for _ in range(2):
        assert (await run("nightly", api, tmp_path)).success
    notes = api.notes()
    assert 0 < len(notes) == len({note["order_id"] for note in notes})
    assert stored(tmp_path, "reminders").keys() == {note["order_id"] for note in notes}


async def test_open_orders_are_those_of_gold_customers(api: OrdersApi, tmp_path: Path) -> None:
    await run("open", api, tmp_path)
    gold = {key for key, customer in api.customers().items() if customer["tier"] == "gold"}
    wanted = {k for k, o in api.orders().items() if o["status"] == "open" and o["customer_id"] in gold}
    assert stored(tmp_path, "open-orders").keys() == wanted
    assert wanted
