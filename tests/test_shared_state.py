"""Machines that share a PostgreSQL database: one runs a mission at a time, another goes on where it was killed.

A machine is a state directory of its own. Time passes by hand: a lease's end is moved in the database.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from reqon import AlreadyRunningError, StateError
from reqon.clock import SYSTEM
from reqon.diagnostics import Source
from reqon.lang.loader import load_text
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionStatus
from reqon.values import decode
from tests.support import postgres
from tests.support.clocks import FakeClock
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon, soon

MISSION = """mission Customers {
  stateStore: postgres
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


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.database() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    postgres.ask(server, "DROP SCHEMA IF EXISTS reqon CASCADE")
    return server


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=60) as running:
        yield running


@pytest.fixture
def variables(api: OrdersApi, url: str, tmp_path: Path) -> Mapping[str, str]:
    (tmp_path / "customers.vague").write_text(MISSION)
    return {"SHOP_URL": api.url, "REQON_STATE_URL": url}


def run_out(url: str) -> None:
    """Let the time of all leases pass."""
    postgres.ask(url, "UPDATE reqon.leases SET until = clock_timestamp() - interval '1 ms'")


def stored(directory: Path) -> set[str]:
    return set(decode((directory / "stores" / "customers.json").read_bytes()))


def test_another_machine_takes_over_when_the_lease_of_a_killed_one_ran_out(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    """R2."""
    api.hold("/customers/", at=25)
    with Process(["customers.vague", "--state-dir", "one"], cwd=tmp_path, variables=variables) as first:
        assert api.reached.wait(60)
        beside = reqon("customers.vague", "--state-dir", "two", cwd=tmp_path, variables=variables)
        assert beside.code == 0
        assert "is running on another machine: this run is skipped" in beside.err
        first.kill()
    api.release()
    third = reqon("status", "Customers", "--json", "--state-dir", "three", cwd=tmp_path, variables=variables)
    assert third.json["status"] == "running", "also for one that never ran anything"
    assert not (tmp_path / "three").exists()
    there = reqon("status", "Customers", "--json", "--state-dir", "two", cwd=tmp_path, variables=variables).json
    assert there["status"] == "running", "for all that another machine can know"
    waiting = reqon("customers.vague", "--resume", "--state-dir", "two", cwd=tmp_path, variables=variables)
    assert "on another machine" in waiting.err
    run_out(url)
    resumed = reqon("customers.vague", "--resume", "--state-dir", "two", cwd=tmp_path, variables=variables)
    assert resumed.code == 0, resumed.err
    state = reqon("status", "Customers", "--json", "--state-dir", "one", cwd=tmp_path, variables=variables).json
    assert (state["executionId"], state["status"], state["attempt"]) == (there["executionId"], "completed", 2)
    assert stored(tmp_path / "two") == set(api.customers())
    assert postgres.ask(url, "SELECT count(*) FROM reqon.leases") == [(0,)]
    assert postgres.ask(url, "SELECT count(*) FROM reqon.journal") == [(0,)]


def test_a_machine_that_slept_longer_than_its_lease_writes_nothing_more(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    """R2: suspended by SIGSTOP in mid-run until its lease is over and another machine has done the rest."""
    api.hold("/customers/", at=25)
    with Process(["customers.vague", "--state-dir", "one"], cwd=tmp_path, variables=variables) as first:
        assert api.reached.wait(60)
        first.signal(signal.SIGSTOP)
        run_out(url)
        api.release()
        taken = reqon("customers.vague", "--resume", "--state-dir", "two", cwd=tmp_path, variables=variables)
        assert taken.code == 0, taken.err
        done = reqon("status", "Customers", "--json", "--state-dir", "two", cwd=tmp_path, variables=variables).json
        assert (done["status"], done["attempt"]) == ("completed", 2)
        rows = postgres.ask(url, "SELECT * FROM reqon.records"), postgres.ask(url, "SELECT * FROM reqon.sync")
        asked = len(api.requests("/customers/"))
        first.signal(signal.SIGCONT)
        ended = first.wait()
    assert ended.code == 3, ended.text
    assert "was resumed elsewhere: nothing more of this run is kept [lease-lost]" in ended.err
    assert "Traceback" not in ended.text
    assert (postgres.ask(url, "SELECT * FROM reqon.records"), postgres.ask(url, "SELECT * FROM reqon.sync")) == rows
    assert postgres.ask(url, "SELECT count(*) FROM reqon.journal") == [(0,)]
    assert postgres.ask(url, "SELECT count(*) FROM reqon.leases") == [(0,)]
    assert len(api.requests("/customers/")) - asked <= 1, "the request that was on its way when it woke, at most"


def test_cleanup_leaves_what_runs_on_another_machine(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    """Skipped and named, whichever way it is asked for; what another machine has finished goes."""
    assert reqon("customers.vague", "--state-dir", "one", cwd=tmp_path, variables=variables).code == 0
    (done,) = reqon("history", "--json", "--state-dir", "two", cwd=tmp_path, variables=variables).json
    api.hold("/customers/", at=25)
    with Process(["customers.vague", "--state-dir", "one"], cwd=tmp_path, variables=variables) as first:
        assert api.reached.wait(60)
        for words in ("--all --yes", "Customers --all", "--older-than 0s"):
            swept = reqon("cleanup", *words.split(), "--json", "--state-dir", "two", cwd=tmp_path, variables=variables)
            assert swept.code == 0, swept
            (running,) = swept.json["skipped"]
            assert f"skipped: {running} of Customers is running" in swept.err
            assert swept.json["deleted"] == ([done["executionId"]] if words == "--all --yes" else [])
        api.release()
        assert first.wait().code == 0
    (left,) = reqon("history", "--json", "--state-dir", "three", cwd=tmp_path, variables=variables).json
    assert (left["executionId"], left["status"]) == (running, "completed")


def test_a_daemon_goes_on_with_what_another_machine_left(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    """R2."""
    api.hold("/customers/", at=25)
    with Process(["customers.vague", "--state-dir", "one"], cwd=tmp_path, variables=variables) as first:
        assert api.reached.wait(60)
        with Process(
            ["customers.vague", "--daemon", "--state-dir", "two"], cwd=tmp_path, variables=variables
        ) as daemon:
            daemon.said("ready", seconds=60)
            first.kill()
            api.release()
            run_out(url)
            daemon.said("lost with its machine", seconds=100)
            daemon.said("mission.complete", seconds=60)
            daemon.signal()
            assert daemon.wait(60).code == 0
    (state,) = reqon("history", "--json", "--state-dir", "two", cwd=tmp_path, variables=variables).json
    assert (state["status"], state["attempt"]) == ("completed", 2)
    assert stored(tmp_path / "two") == set(api.customers())


def test_the_machine_itself_goes_on_at_once(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    """R1, R2."""
    api.hold("/customers/", at=25)
    with Process(["customers.vague"], cwd=tmp_path, variables=variables) as first:
        assert api.reached.wait(60)
        first.kill()
    api.release()
    interrupted = reqon("status", "Customers", "--json", cwd=tmp_path, variables=variables).json
    assert (interrupted["status"], interrupted["activeStep"]["index"]) == ("interrupted", 24)
    assert reqon("customers.vague", "--resume", cwd=tmp_path, variables=variables).code == 0
    seen = [r["path"] for r in api.requests("/customers/")]
    assert (len(seen), len(set(seen))) == (61, 60)
    assert stored(tmp_path / ".vague-data") == set(api.customers())


def runner(variables: Mapping[str, str], directory: Path, *, lease_seconds: float = 60.0) -> Runner:
    settings = RunnerSettings(state_directory=directory, lease_seconds=lease_seconds)
    return Runner(settings, environment=variables)


async def test_a_run_whose_lease_went_elsewhere_is_stopped(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    here = runner(variables, tmp_path / "one", lease_seconds=1.2)
    plan = here.plan(load_text(Source("customers.vague", MISSION)).missions[0])
    request = RunRequest(mission=plan.name, path="customers.vague", definition_hash=plan.definition_hash)
    api.hold("/customers/", at=5)
    running = asyncio.create_task(here.execute(plan, request))
    assert await asyncio.to_thread(api.reached.wait, 60)
    postgres.ask(url, "UPDATE reqon.leases SET owner = 'another', until = clock_timestamp() + interval '1 hour'")
    with pytest.raises(StateError, match="the lease of mission 'Customers' went to another machine"):
        await asyncio.wait_for(running, 60)
    with pytest.raises(AlreadyRunningError, match="on another machine"):
        await here.execute(plan, request)
    assert postgres.ask(url, "SELECT owner FROM reqon.leases") == [("another",)]
    await here.close()


async def test_a_lease_is_renewed_for_as_long_as_the_mission_runs(
    api: OrdersApi, url: str, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    here = runner(variables, tmp_path / "one", lease_seconds=1.2)
    plan = here.plan(load_text(Source("customers.vague", MISSION)).missions[0])
    request = RunRequest(mission=plan.name, path="customers.vague", definition_hash=plan.definition_hash)
    api.hold("/customers/", at=5)
    running = asyncio.create_task(here.execute(plan, request))
    assert await asyncio.to_thread(api.reached.wait, 60)
    ends = "SELECT until FROM reqon.leases"
    first = postgres.ask(url, ends)
    seen = {str(first)}

    def renewed() -> bool:
        seen.add(str(postgres.ask(url, ends)))
        return len(seen) > 3

    await asyncio.to_thread(soon, renewed, "renewed", seconds=60)
    api.release()
    outcome = await asyncio.wait_for(running, 60)
    assert outcome.record.status is ExecutionStatus.COMPLETED
    assert postgres.ask(url, ends) == []
    await here.close()


def test_the_command_line_finds_what_lies_in_postgres_and_says_where_when_it_cannot(
    api: OrdersApi, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    assert reqon("customers.vague", cwd=tmp_path, variables=variables).code == 0
    assert list((tmp_path / ".vague-data" / "execution").iterdir()) == []
    (shown,) = reqon("history", "--json", cwd=tmp_path, variables=variables).json
    assert reqon("status", "Customers", "--json", cwd=tmp_path, variables=variables).json == shown
    without = reqon("history", "--json", cwd=tmp_path)
    assert (without.code, without.json) == (0, [])
    assert "executions in the state store 'postgres' are not seen" in without.err
    assert "REQON_STATE_URL" in without.err
    (tmp_path / ".env").write_text(f"REQON_STATE_URL={variables['REQON_STATE_URL']}\n")
    assert reqon("history", "--json", cwd=tmp_path).json == [shown]
    assert reqon("history", "--json", "--state-store", "file", cwd=tmp_path).json == []
    gone = reqon("cleanup", "Customers", "--all", "--yes", "--json", cwd=tmp_path)
    assert gone.json["deleted"] == [shown["executionId"]]


def test_lines_whose_record_another_machine_deleted_go_too(
    api: OrdersApi, tmp_path: Path, variables: Mapping[str, str]
) -> None:
    for _ in range(2):
        assert reqon("customers.vague", "--state-dir", "one", cwd=tmp_path, variables=variables).code == 0
    later = FakeClock(SYSTEM.now() + timedelta(hours=2))
    directory = StateDirectory(tmp_path / "one", clock=later)
    stores = StateStores(directory, environment=variables)
    newest, oldest = stores.list()
    other = StateStores(StateDirectory(tmp_path / "two").open(), only="postgres", environment=variables)
    other.delete(oldest)
    other.close()
    assert stores.forget_logs() == 1
    assert stores.forget_logs() == 0
    assert [path.name for path in directory.logs.iterdir()] == [f"{newest.execution_id}.log"]
    unknown = StateStores(directory, environment={"REQON_STATE_URL": "postgresql://127.0.0.1:1/none"})
    with pytest.raises(StateError):
        unknown.forget_logs()
    stores.close()


def test_without_a_url_nothing_begins(api: OrdersApi, tmp_path: Path, variables: Mapping[str, str]) -> None:
    ended = reqon("customers.vague", cwd=tmp_path, SHOP_URL=api.url)
    assert ended.code == 3
    assert "customers.vague:2:15: error: stateStore: postgres needs REQON_STATE_URL" in ended.err
    dead = reqon(
        "customers.vague", cwd=tmp_path, SHOP_URL=api.url, REQON_STATE_URL="postgresql://u:passw0rd-x@127.0.0.1:1/none"
    )
    assert dead.code == 3
    assert "PostgreSQL none at 127.0.0.1:1" in dead.err
    assert "passw0rd-x" not in dead.text
    assert api.requests() == []
