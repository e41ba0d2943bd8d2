"""The lines of each execution: kept beside its record, bounded, masked, shown while it runs and after."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon import execute
from reqon.clock import SYSTEM
from reqon.events import DataStored, Emitted, EventBus, FetchCompleted, MissionStarted, Noticed
from reqon.observe import runlog
from reqon.observe.runlog import RunLogs
from reqon.secrets import SECRETS
from reqon.state.directory import StateDirectory
from reqon.values import decode
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon

MISSION = """mission Customers {
  source Shop { auth: none, base: env("SHOP_URL"), retry: { maxAttempts: 1 } }
  store customers: file("customers")
  action Visit {
    get "/customers" { params: { per_page: 20 } }
    for customer in response.customers {
      get "/customers/{customer.id}"
      store response -> customers { key: .id }
    }
  }
  run Visit
}
"""
ID = "exec_00000000000000000000000001"


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=60) as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state").open()


def lines(directory: StateDirectory, execution_id: str = ID) -> list[dict[str, Any]]:
    found = b"".join(p.read_bytes() for p in directory.log_files(execution_id) if p.exists())
    return [decode(line) for line in found.splitlines()]


def emitted(event: Any) -> Emitted:
    return Emitted(event, 1, ID, "Customers", SYSTEM.now())


def a_request(number: int = 1) -> FetchCompleted:
    path = f"/customers/{number}"
    return FetchCompleted(
        source="Shop", method="GET", path=path, url=path, status=200, record_count=1, bytes_received=9, attempts=1
    )


def test_lines_tell_a_run_from_its_start_to_its_end_and_go_with_its_record(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "customers.vague").write_text(MISSION)
    assert reqon("customers.vague", cwd=tmp_path, SHOP_URL=api.url).code == 0
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    shown = reqon("logs", record["executionId"], cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    messages = [line.split()[2] for line in shown.out.splitlines()]
    assert messages[0] == "mission.start"
    assert messages[-1] == "mission.complete"
    assert messages.count("fetch.complete") == 21
    assert "data.store  storeName=customers added=20" in shown.out
    machines = reqon("logs", record["executionId"], "--json", cwd=tmp_path).out.splitlines()
    assert [decode(line.encode())["message"] for line in machines] == messages
    assert {decode(line.encode())["execution_id"] for line in machines} == {record["executionId"]}
    folder = tmp_path / ".vague-data" / "logs"
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600]
    assert reqon("cleanup", "Customers", "--all", cwd=tmp_path).code == 0
    assert list(folder.iterdir()) == []


def test_a_killed_run_has_its_lines_and_its_resume_adds_to_them(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "customers.vague").write_text(MISSION)
    api.hold("/customers/", at=10)
    with Process(["customers.vague"], cwd=tmp_path, variables={"SHOP_URL": api.url}) as process:
        assert api.reached.wait(60)
        (record,) = reqon("history", "--json", cwd=tmp_path).json
        assert record["status"] == "running"
        assert "mission.start" in reqon("logs", record["executionId"], cwd=tmp_path).out
        with Process(["logs", record["executionId"], "--follow"], cwd=tmp_path) as following:
            following.said("mission.start", seconds=60)
            assert following.running
            process.signal(signal.SIGKILL)
            process.wait()
            assert following.wait(60).code == 0, "its owner is dead: there is nothing to wait for"
    api.release()
    assert reqon("customers.vague", "--resume", cwd=tmp_path, SHOP_URL=api.url).code == 0
    told = reqon("logs", record["executionId"], cwd=tmp_path).out
    assert told.count("mission.start") == 2
    assert "isResume=true" in told
    assert told.rstrip().splitlines()[-1].split()[2] == "mission.complete"


async def test_a_failure_is_told_with_its_place(tmp_path: Path) -> None:
    text = 'mission Failing { action Load { for i in [1] { abort "no more of this" } } run Load }'
    result = await execute(text, state_dir=tmp_path / "state")
    found = lines(StateDirectory(tmp_path / "state"), result.execution_id)
    (error,) = [line for line in found if line["level"] == "error" and "location" in line]
    assert (error["message"], error["location"]) == ("no more of this", "<source>:1:48")


async def test_a_mission_without_state_has_no_lines(tmp_path: Path) -> None:
    text = "mission Quiet { enableState: false, action Load { let x = 1 } run Load }"
    assert (await execute(text, state_dir=tmp_path / "state")).success
    assert not StateDirectory(tmp_path / "state").logs.exists()


def test_what_is_logged_in_a_run_is_among_its_lines_and_still_where_it_was(
    directory: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("reqon")
    with RunLogs(directory, EventBus()).of(ID, "Customers"):
        log.warning("disk is %s", "slow")
        try:
            1 / 0  # noqa: B018  # raises
        except ZeroDivisionError:
            log.exception("a bug")
    log.warning("after it")
    assert [line["message"] for line in lines(directory)] == ["disk is slow", "a bug"]
    assert "ZeroDivisionError" in lines(directory)[1]["exception"]
    assert [r.message for r in caplog.records] == ["disk is slow", "a bug", "after it"]


def test_secrets_are_masked_and_long_fields_cut(directory: StateDirectory) -> None:
    """K1."""
    SECRETS.add("hunter2-hunter2")
    bus = EventBus()
    with RunLogs(directory, bus).of(ID, "Customers"):
        bus.emit(emitted(Noticed(level="warning", message="with hunter2-hunter2 in it")))
        bus.emit(emitted(Noticed(level="warning", message="x" * 100_000)))
    SECRETS.forget("hunter2-hunter2")
    first, second = lines(directory)
    assert first["message"] == "with *** in it"
    assert len(second["message"]) == 8 * 1024 + 1


def test_single_requests_are_listed_up_to_a_number(directory: StateDirectory) -> None:
    bus = EventBus()
    with RunLogs(directory, bus).of(ID, "Customers"):
        for n in range(runlog.MOST * 3):
            bus.emit(emitted(a_request(n)))
    found = lines(directory)
    assert len(found) == runlog.MOST + 1
    assert "more are only counted" in found[-1]["message"]


def test_what_is_not_kept_any_more_is_not_asked_for(directory: StateDirectory) -> None:
    """No event is made of each request for a line that nobody keeps; the next execution has its lines again."""
    bus = EventBus()
    logs = RunLogs(directory, bus)
    with logs.of(ID, "Customers"), logs.of(f"{ID[:-1]}2", "Customers"):
        for n in range(runlog.MOST + 1):
            bus.emit(emitted(a_request(n)))
        assert bus.wants(FetchCompleted)  # the other has had none yet
    with logs.of(ID, "Customers"):
        for n in range(runlog.MOST + 1):
            assert bus.wants(FetchCompleted)
            bus.emit(emitted(a_request(n)))
        assert not bus.wants(FetchCompleted)
        with logs.of(f"{ID[:-1]}3", "Customers"):
            assert bus.wants(FetchCompleted)


def test_writes_of_a_store_are_summed_up(directory: StateDirectory) -> None:
    bus = EventBus()
    stored = DataStored(
        store_name="out", store_type="file", operation="upsert", item_count=2, added=1, updated=1, unchanged=0
    )
    with RunLogs(directory, bus).of(ID, "Customers"):
        for _ in range(100):
            bus.emit(emitted(stored))
    (line,) = lines(directory)
    assert (line["storeName"], line["added"], line["updated"]) == ("out", 100, 100)


def test_the_newest_lines_are_kept_and_no_more_than_two_files(directory: StateDirectory, tmp_path: Path) -> None:
    bus = EventBus()
    began = MissionStarted(stage_count=1, is_resume=False, trigger="manual")
    with RunLogs(directory, bus).of(ID, "Customers"):
        bus.emit(emitted(began))
        for n in range(8_000):
            bus.emit(emitted(Noticed(level="warning", message=f"{n} " + "x" * 500)))
    assert directory.log_bytes(ID) <= 2 * (runlog.FILE_BYTES + 2 * 64 * 1024)
    found = lines(directory)
    assert found[-1]["message"].startswith("7999 ")
    assert found[0]["message"] != "mission.start"
    numbers = [int(line["message"].split()[0]) for line in found]
    assert numbers == list(range(numbers[0], 8_000))


@pytest.mark.parametrize("damage", ["a file", "a directory in its place", "half a line"])
def test_what_cannot_be_written_or_read_ends_nothing(
    directory: StateDirectory, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = directory.log_files(ID)[1]
    if damage == "a file":
        directory.logs.write_text("not a directory")
    else:
        path.parent.mkdir()
        path.mkdir() if damage == "a directory in its place" else path.write_bytes(b'{"message": "cut')
    bus = EventBus()
    with RunLogs(directory, bus).of(ID, "Customers"):
        for _ in range(3):
            bus.emit(emitted(Noticed(level="warning", message="going on")))
    assert bus.failures == 0
    if damage == "half a line":
        assert path.read_bytes().splitlines()[1].startswith(b'{"timestamp"')
    else:
        assert [r.message.partition(":")[0] for r in caplog.records] == ["log lines of executions are not kept"]


def test_an_execution_without_lines_is_told_by_its_record(tmp_path: Path) -> None:
    (tmp_path / "m.vague").write_text(
        'mission Failing { action Load { for i in [1] { abort "no more of this" } } run Load }'
    )
    assert reqon("m.vague", cwd=tmp_path).code == 1
    (record,) = reqon("history", "--json", cwd=tmp_path).json
    for path in (tmp_path / ".vague-data" / "logs").iterdir():
        path.unlink()
    shown = reqon("logs", record["executionId"], cwd=tmp_path)
    assert shown.code == 0
    assert "m.vague:1:48" in shown.out
    assert "no log lines" in shown.err
    assert reqon("logs", "exec_00000000000000000000000009", cwd=tmp_path).code == 3
