"""D10: the state of every earlier release loads, is brought forward, and goes on; a newer one stays untouched."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reqon.state.directory import StateDirectory
from reqon.values import decode
from tests.support import postgres
from tests.support.orders_api import OrdersApi
from tests.support.processes import reqon

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if (path / "customers.vague").is_file())


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=40, orders=20) as running:
        yield running


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a release left behind, in a place of its own."""
    shutil.copytree(request.param, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def variables(home: Path, api: OrdersApi) -> Iterator[dict[str, str]]:
    known = {"SHOP_URL": api.url, "REQON_STATE_DIR": "state"}
    script = home / "database.sql"
    if not script.exists():
        yield known
        return
    with postgres.database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(script.read_bytes())
        yield {**known, "REQON_STATE_URL": url}


def test_there_is_a_state_of_each_store() -> None:
    assert {path.name.rpartition("-")[2] for path in RELEASES} == {"file", "sqlite", "postgres"}


def test_what_a_release_left_behind_is_read_and_goes_on(home: Path, api: OrdersApi, variables: dict[str, str]) -> None:
    """D10."""
    known = reqon("history", "--json", cwd=home, variables=variables)
    assert known.err == ""
    by_mission = {record["mission"]: record for record in known.json}
    assert by_mission["Recent"]["status"] == "completed"
    assert by_mission["Customers"]["status"] == "failed"
    failed = by_mission["Customers"]["executionId"]
    told = reqon("resume", "customers.vague", "--explain", cwd=home, variables=variables)
    assert "List: completed" in told.out, told.text
    resumed = reqon("customers.vague", "--resume", cwd=home, variables=variables)
    assert resumed.code == 0, resumed.text
    record = reqon("status", "Customers", "--json", cwd=home, variables=variables).json
    assert (record["executionId"], record["status"], record["attempt"]) == (failed, "completed", 2)
    assert len(api.requests("/customers/")) == 10, "what was visited is not visited again"
    assert set(decode((home / "state" / "stores" / "customers.json").read_bytes())) == set(api.customers())


def test_slots_and_sync_checkpoints_of_a_release_count(home: Path, api: OrdersApi, variables: dict[str, str]) -> None:
    """D10."""
    ended = reqon("recent.vague", "--once", cwd=home, variables=variables)
    assert ended.code == 0, ended.text
    (asked,) = api.requests("/orders")
    assert "since" in str(asked), "the sync checkpoint of the earlier release was read"
    assert len(reqon("history", "Recent", "--json", cwd=home, variables=variables).json) == 2


def test_a_directory_of_an_older_layout_is_brought_forward_step_by_step(tmp_path: Path) -> None:
    """D10."""
    StateDirectory(tmp_path / "state").open()
    taken: list[str] = []

    def first(directory: StateDirectory) -> None:
        taken.append("first")

    def second(directory: StateDirectory) -> None:
        assert (directory.path / ".format").read_text() == "2\n"
        taken.append("second")
        if taken.count("second") == 1:
            raise OSError(5, "killed in between")

    later = StateDirectory(tmp_path / "state", upgrades=(first, second))
    with pytest.raises(Exception, match="killed in between"):
        later.open()
    later.open()
    StateDirectory(tmp_path / "state", upgrades=(first, second)).open()
    assert taken == ["first", "second", "second"], "a step that was cut off is taken again, no other is"
    with pytest.raises(Exception, match="newer Reqon"):
        StateDirectory(tmp_path / "state").open()
