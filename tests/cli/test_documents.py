"""OpenAPI documents at the command line: what `check`, `plan` and runs say, and how they exit (daemon.md 1)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon.lang.program import Unit
from reqon.runner import Runner, RunnerSettings
from reqon_daemon.catalog import Catalog
from reqon_daemon.plans import Planner, documents_of
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon
from tests.support.spec_server import SpecServer
from tests.support.specs import document, written

CUSTOMERS: dict[str, Any] = {
    "/secure/customers/{id}": {"get": {"operationId": "getCustomer", "responses": {}}},
    "/secure/customers": {"get": {"operationId": "listCustomers", "responses": {}}},
}
MISSION = """mission M {{
  source Shop from "{spec}" {{ auth: none{options} }}
  action A {{ call Shop.{call} }}
  run A
}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path, document(CUSTOMERS, servers=[{"url": "https://shop.example.org/v1"}]), "shop.json")
    return tmp_path


def mission(folder: Path, *, spec: str = "shop.json", call: str = "listCustomers", options: str = "") -> None:
    (folder / "m.vague").write_text(MISSION.format(spec=spec, call=call, options=options))


def test_a_document_beside_the_mission_is_right(folder: Path) -> None:
    mission(folder)
    assert reqon("check", "m.vague", cwd=folder).code == 0
    planned = reqon("plan", "m.vague", cwd=folder)
    assert "GET https://shop.example.org/v1/secure/customers" in planned.out
    assert [path.name for path in sorted(folder.iterdir())] == ["m.vague", "shop.json"]


def test_a_wrong_call_is_wrong_text_and_a_wrong_document_is_wrong_configuration(folder: Path) -> None:
    mission(folder, call="getCustomers")
    ended = reqon("check", "m.vague", cwd=folder)
    assert ended.code == 2
    assert "m.vague:3:24: error: source 'Shop' has no operation 'getCustomers' [undefined-operation]" in ended.err
    assert "hint: operations with a similar name: getCustomer, listCustomers" in ended.err
    mission(folder)
    written(folder, {"openapi": "3.0.0", "info": {}, "paths": {"x": {}}}, "shop.json")
    for command in (["check", "m.vague"], ["m.vague"], ["m.vague", "--dry-run"]):
        ended = reqon(*command, cwd=folder)
        assert ended.code == 3, command
        assert "m.vague:2:20: error: shop.json#/paths/x: a path begins with '/' [spec]" in ended.err
        assert "shop.json#/info: 'title' is missing" in ended.err


@pytest.fixture
def served(folder: Path) -> Iterator[OrdersApi]:
    """An API that serves its own document, and a mission that knows it by its URL."""
    with OrdersApi() as api:
        mission(folder, spec=f"{api.url}/secure/customers")
        yield api


def test_check_works_without_the_network(folder: Path) -> None:
    mission(folder, spec="http://127.0.0.1:9/openapi.json")
    text = (folder / "m.vague").read_text()
    (folder / "m.vague").write_text(text.replace("action A {", "let region = 1\n  action A { let id = 2"))
    ended = reqon("check", "m.vague", "--offline", cwd=folder)
    assert ended.code == 0
    assert "unused" not in ended.err, "a call may take any variable for a parameter in its path"
    assert "warning: the specification http://127.0.0.1:9/openapi.json was not downloaded yet" in ended.err
    online = reqon("check", "m.vague", cwd=folder)
    assert online.code == 3
    assert "the specification cannot be had" in online.err
    assert [path.name for path in sorted(folder.iterdir())] == ["m.vague", "shop.json"]


def test_a_document_of_the_wrong_kind_is_told(served: OrdersApi, folder: Path) -> None:
    ended = reqon("check", "m.vague", cwd=folder)
    assert ended.code == 3
    assert "error: " in ended.err


def test_a_run_keeps_what_it_downloads_and_downloads_again_when_told(folder: Path) -> None:
    with SpecServer(document(CUSTOMERS, servers=[{"url": "/"}])) as server:
        mission(folder, spec=f"{server.url}/openapi.json", options=", validateResponses: true")
        assert reqon("m.vague", cwd=folder).code == 0
        assert reqon("m.vague", cwd=folder).code == 0
        assert server.asked("/openapi.json") == 1
        assert reqon("m.vague", "--no-oas-cache", cwd=folder).code == 0
        assert server.asked("/openapi.json") == 2
        assert server.asked("/secure/customers") == 3
        assert reqon("check", "m.vague", "--offline", cwd=folder).err == ""
        kept = sorted(path.suffix for path in (folder / ".vague-data" / "oas-cache").iterdir())
        assert kept == [".json", ".meta"]


async def test_an_edited_document_is_a_changed_mission_to_the_daemon(folder: Path) -> None:
    mission(folder)
    runner = Runner(RunnerSettings(state_directory=folder / "state"), environment={})
    planner = Planner(runner, {})
    loads: list[Path] = []

    def load(path: Path) -> list[Unit]:
        loads.append(path)
        return list(planner.load(path))

    catalog = Catalog([folder / "m.vague"], load=load, plan=planner.plan, documents=documents_of)
    assert (await catalog.reload(settle=False)).added == ("M",)
    await catalog.reload(settle=False)
    assert len(loads) == 1
    written(folder, document({"/other": {"get": {"operationId": "other", "responses": {}}}}), "shop.json")
    broken = await catalog.reload(settle=False)
    assert len(loads) == 2
    (problem,) = broken.broken[str(folder / "m.vague")]
    assert problem.code == "undefined-operation"
    assert catalog.get("M") is not None  # the last good version stays in service
    await runner.close()
