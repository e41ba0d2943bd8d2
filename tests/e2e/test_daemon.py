"""`reqon PATH --daemon` as its user meets it: on the command line, over HTTP, after kill -9."""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reqon.values import JsonError, decode
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon, soon

CUSTOMERS = 30

# A page, a loop with a request for each item, and what comes of it.
SYNC = """
mission Sync {{
  schedule: every 1 second {{ runImmediately: true }}
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store customers: file("customers")
  store towns: file("towns")
  action List {{
    get "/customers" {{ params: {{ per_page: 10 }}, paginate: page(page, 10), until: response.page >= response.pages }}
    store response -> customers {{ key: .id }}
  }}
  action Fetch {{
    for customer in customers {{
      get "/customers/{{customer.id}}"
      store {{ id: customer.id, name: customer.name, town: response.address.town }} -> towns {{ key: .id }}
    }}
  }}
  run List then Fetch
}}
"""
# Of no schedule that comes due here, so that only what we ask for happens.
RESTING = """
mission Resting {{
  schedule: every 1 hour
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store orders: file("orders")
  action List {{
    get "/orders" {{ params: {{ limit: 100 }} }}
    store response.orders -> orders {{ key: .id }}
  }}
  run List
}}
"""


class Daemon(Process):
    """The daemon on the folder `missions`, its state in `state`, its log read as it comes."""

    def __init__(self, home: Path, *options: object, **variables: str) -> None:
        super().__init__(["missions", "--daemon", "--state-dir", "state", *options], cwd=home, variables=variables)

    def lines(self, message: str, **fields: object) -> list[dict[str, Any]]:
        """Its log lines of this message with these fields."""
        found = []
        for text in self.err.splitlines():
            try:
                line = decode(text.encode())
            except JsonError:
                continue
            if line.get("message") == message and all(line.get(k) == v for k, v in fields.items()):
                found.append(line)
        return found

    def line(self, message: str, *, number: int = 1, **fields: object) -> dict[str, Any]:
        """The log line, as soon as it came so often."""
        self.until(lambda _: len(self.lines(message, **fields)) >= number, f"said {message} {fields}")
        return self.lines(message, **fields)[number - 1]

    def ready(self) -> Self:
        self.line("ready")
        return self

    @property
    def url(self) -> str:
        return str(self.line("listening", purpose="metrics")["url"])

    def scrape(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample of one scrape, as Prometheus reads it."""
        with urlopen(f"{self.url}/metrics", timeout=60) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def metric(self, name: str, **labels: str) -> float:
        """One sample's value; NaN where there is none, which equals nothing."""
        return self.scrape().get((name, tuple(sorted(labels.items()))), math.nan)


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi(customers=CUSTOMERS, orders=20) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "missions").mkdir()
    return tmp_path


def write(home: Path, text: str, api: OrdersApi, name: str = "mission.vague") -> Path:
    path = home / "missions" / name.replace("mission", text.split()[1].lower())
    path.write_text(text.format(url=api.url))
    return path


def stores(home: Path, state: str = "state") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / state / "stores").glob("*.json")}


def ask(home: Path, *arguments: object) -> Any:
    """A command about this daemon's state, answered in JSON."""
    ended = reqon(*arguments, "--state-dir", "state", "--json", cwd=home)
    assert ended.code == 0, ended.text
    return ended.json


def alerts(api: OrdersApi, status: str, kind: str = "failed") -> list[dict[str, Any]]:
    return [
        alert
        for notice in api.alerts()
        for alert in notice["alerts"]
        if alert["status"] == status and alert["labels"]["kind"] == kind
    ]


def test_a_night_with_a_failing_api_and_a_killed_daemon(api: OrdersApi, home: Path) -> None:
    """D1, A3: runs, metrics, an alert and its resolve over HTTP; SIGKILL in mid-loop; the stores of an uncut run."""
    mission = write(home, SYNC, api)
    uncut = reqon(mission, "--state-dir", "uncut", cwd=home)
    assert uncut.code == 0, uncut.text
    options = ("--metrics-port", 0, "--alert-on-failure", "--alert-url", f"{api.url}/_alerts")
    with Daemon(home, *options) as daemon:
        daemon.ready().line("run ended", mission="Sync", outcome="success", number=2)
        assert daemon.metric("reqon_mission_runs_total", mission="Sync", status="success") >= 2
        assert daemon.metric("reqon_execution_items_processed", mission="Sync") == 2 * CUSTOMERS
        assert daemon.metric("reqon_execution_duration_seconds", mission="Sync") > 0
        assert daemon.metric("reqon_execution_errors_total", mission="Sync") == 0
        assert daemon.metric("reqon_mission_duration_seconds_count", mission="Sync") >= 2
        health = decode(urlopen(f"{daemon.url}/health", timeout=60).read())
        assert health["status"] == "ok"

        api.fail(500, "/customers", times=10**6)
        failed = daemon.line("run ended", mission="Sync", outcome="failure")
        (alert, *_) = soon(lambda: alerts(api, "firing"), "the alert")
        assert alert["labels"]["mission"] == "Sync"
        assert failed["execution_id"] in str(alert)
        assert daemon.metric("reqon_execution_errors_total", mission="Sync") >= 1
        assert daemon.metric("reqon_alert_active", mission="Sync", kind="failed") == 1
        assert ask(home, "status", "Sync")["mission"] == "Sync"
        assert ask(home, "history", "Sync", "--status", "failed", "--limit", 1)[0]["errors"][0]["status"] == 500

        api.heal()
        (resolved,) = soon(lambda: alerts(api, "resolved"), "the resolve")
        assert resolved["labels"] == alert["labels"]
        assert len(alerts(api, "firing")) == 1
        assert daemon.metric("reqon_alert_active", mission="Sync", kind="failed") == 0

        api.hold("/customers/cust_0017")
        assert api.reached.wait(60)
        seen = len(api.requests())
        daemon.process.send_signal(signal.SIGKILL)
        daemon.wait()
    (lost,) = [r for r in ask(home, "history", "Sync") if r["status"] == "interrupted"]
    assert lost["activeStep"] == {"action": "Fetch", "index": 16, "item": {"id": "cust_0017"}} | {
        "step": lost["activeStep"]["step"]
    }
    api.release()

    with Daemon(home, *options) as daemon:
        done = daemon.ready().line("run ended", execution_id=lost["executionId"])
        assert done["outcome"] == "success"
        went_on = [request["path"] for request in api.requests()[seen:]]
        assert went_on[:14] == [f"/customers/cust_{n:04d}" for n in range(17, CUSTOMERS + 1)]
        assert daemon.metric("reqon_resumes_total", mission="Sync", outcome="success") == 1
        daemon.line("run ended", mission="Sync", outcome="success", number=2)
        began = time.monotonic()
        daemon.signal()
        assert daemon.wait(60).code == 0
        assert time.monotonic() - began < 15
    assert stores(home) == stores(home, "uncut")
    resumed = ask(home, "status", "--execution", lost["executionId"])
    assert (resumed["status"], resumed["attempt"], resumed["itemsProcessed"]) == ("completed", 2, 2 * CUSTOMERS)
    assert "Traceback" not in daemon.err
    shown = reqon("status", "--state-dir", "state", cwd=home)
    assert "Sync" in shown.out
    assert "completed" in shown.out


@pytest.mark.parametrize("item", [1, 15, 30])
def test_told_to_stop_in_mid_loop_it_saves_and_the_next_start_goes_on(item: int, api: OrdersApi, home: Path) -> None:
    """L2, L3: with a request that hangs it exits 0 after its grace; nothing that was done is done again."""
    write(home, SYNC.replace("every 1 second", "every 1 hour"), api)
    api.hold(f"/customers/cust_{item:04d}")
    with Daemon(home, "--shutdown-grace", "1s") as daemon:
        assert api.reached.wait(60)
        daemon.signal(signal.SIGINT)
        assert daemon.wait(8).code == 0
    shown = ask(home, "status", "Sync")
    assert (shown["status"], shown["activeStep"]["index"]) == ("interrupted", item - 1)
    seen = len(api.requests())
    api.release()
    with Daemon(home) as daemon:
        assert daemon.ready().line("run ended", execution_id=shown["executionId"])["outcome"] == "success"
        daemon.signal()
        assert daemon.wait(8).code == 0
    assert [r["path"] for r in api.requests()[seen:]] == [
        f"/customers/cust_{n:04d}" for n in range(item, CUSTOMERS + 1)
    ]
    assert len(decode(stores(home)["towns.json"])) == CUSTOMERS


# --- what cannot start ------------------------------------------------------------------------------------------------


def test_a_second_daemon_names_the_first_one(api: OrdersApi, home: Path) -> None:
    """R6 in part: exit 3, one finding, the pid."""
    write(home, RESTING, api)
    with Daemon(home) as first:
        first.ready()
        began = time.monotonic()
        with Daemon(home) as second:
            ended = second.wait(60)
        assert time.monotonic() - began < 15
        assert ended.code == 3
        assert f"pid {first.process.pid}" in ended.err
        assert "--state-dir" in ended.err
        assert first.running


def test_a_taken_port_is_said_in_one_line(api: OrdersApi, home: Path) -> None:
    write(home, RESTING, api)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Daemon(home, "--metrics-port", port) as daemon:
            ended = daemon.wait(60)
    assert ended.code == 3
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(port) in errors[0]
    assert "Traceback" not in ended.err


def a_file(home: Path) -> None:
    (home / "state").write_text("not a directory")


def nothing_writable(home: Path) -> None:
    (home / "state").mkdir()
    (home / "state").chmod(0o500)


def a_newer_format(home: Path) -> None:
    (home / "state").mkdir(mode=0o700)
    (home / "state" / ".format").write_text("99\n")


@pytest.mark.parametrize("spoil", [a_file, nothing_writable, a_newer_format])
@pytest.mark.parametrize("how", ["--daemon", "--once", ""])
def test_a_state_directory_that_cannot_be_used_is_said_in_one_line(
    spoil: Callable[[Path], None], how: str, api: OrdersApi, home: Path
) -> None:
    """D7 in part: exit 3 at once with the path and the reason, for a daemon and for one-shot runs."""
    if spoil is nothing_writable and os.geteuid() == 0:
        return  # root writes everywhere
    write(home, RESTING, api)
    spoil(home)
    ended = reqon("missions", *[how] * bool(how), "--state-dir", "state", cwd=home, seconds=60)
    assert ended.code == 3, ended.text
    assert ended.err.startswith("error: ")
    assert "state" in ended.err.splitlines()[0]
    assert len(ended.err.splitlines()) <= 2  # the error, and perhaps what to do
    assert api.requests() == []


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_broken_edit_changes_nothing_and_a_good_one_is_taken(api: OrdersApi, home: Path) -> None:
    """H1 in part: the last good version stays in service; log, metric, health and `reload` show the broken one."""
    mission = write(home, RESTING, api)
    good = mission.read_text()
    with Daemon(home, "--metrics-port", 0) as daemon:
        daemon.ready()
        mission.write_text(good.replace("run List", "run Lost"))
        answer = ask(home, "reload")
        assert "undefined-action" in str(answer["broken"])
        plain = reqon("reload", "--state-dir", "state", cwd=home)
        assert "action 'Lost' is not declared" in plain.out
        assert daemon.metric("reqon_config_last_reload_successful") == 0
        health = decode(urlopen(f"{daemon.url}/health", timeout=60).read())
        assert health["status"] == "degraded"
        assert ask(home, "trigger", "Resting")["state"].startswith("started")
        daemon.line("run ended", mission="Resting", outcome="success")
        mission.write_text(good.replace("limit: 100", "limit: 7"))
        soon(lambda: daemon.metric("reqon_config_last_reload_successful") == 1, "the mended file")
        ask(home, "trigger", "Resting")
        daemon.line("run ended", mission="Resting", outcome="success", number=2)
        assert api.requests("/orders")[-1]["query"] == {"limit": "7"}
        write(home, SYNC, api)
        soon(lambda: daemon.metric("reqon_missions_loaded", state="active") == 2, "the new file")
        mission.unlink()
        soon(lambda: daemon.metric("reqon_missions_loaded", state="active") == 1, "the file that went")
        assert reqon("trigger", "Resting", "--state-dir", "state", cwd=home).code == 3


def test_one_broken_file_does_not_keep_the_others_from_their_service(api: OrdersApi, home: Path) -> None:
    """H3 in part."""
    write(home, SYNC, api)
    (home / "missions" / "broken.vague").write_text("mission Broken {\n  run Nothing\n")
    with Daemon(home, "--metrics-port", 0) as daemon:
        daemon.ready().line("run ended", mission="Sync", outcome="success")
        assert daemon.metric("reqon_missions_loaded", state="invalid") == 1
        assert "broken.vague:" in daemon.err


# --- what it can be asked ---------------------------------------------------------------------------------------------


def test_trigger_pause_unpause_cancel(api: OrdersApi, home: Path) -> None:
    write(home, RESTING, api)
    with Daemon(home, "--metrics-port", 0) as daemon:
        daemon.ready()
        assert ask(home, "pause", "Resting", "--for", "2h", "--reason", "a move")["pause"]["reason"] == "a move"
        assert daemon.metric("reqon_mission_paused", mission="Resting") == 1
        assert ask(home, "unpause", "Resting")["wasPaused"] is True
        assert ask(home, "unpause", "Resting")["wasPaused"] is False
        assert daemon.metric("reqon_mission_paused", mission="Resting") == 0
        api.hold("/orders")
        assert ask(home, "trigger", "Resting")["state"].startswith("started")
        assert api.reached.wait(60)
        assert ask(home, "status", "Resting")["status"] == "running"
        assert ask(home, "cancel", "Resting")["cancelled"] == 1
        daemon.line("run ended", mission="Resting", outcome="cancelled")
        api.release()
        for command in ("trigger", "pause", "unpause", "cancel"):
            unknown = reqon(command, "Restingg", "--state-dir", "state", cwd=home)
            assert unknown.code == 3
            assert "did you mean 'Resting'?" in unknown.err
        for words in (("trigger", "Resting"), ("pause", "Resting"), ("unpause", "Resting"), ("reload",)):
            said = reqon(*words, "--state-dir", "state", cwd=home)
            assert said.code == 0
            assert said.out.strip()
            assert "{" not in said.out  # for people
        began = time.monotonic()
        daemon.signal()
        assert daemon.wait(60).code == 0
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("command", ["trigger", "pause", "unpause", "cancel", "reload"])
def test_without_a_daemon_it_is_said_where_none_answers(command: str, home: Path) -> None:
    ended = reqon(command, *["M"] * (command != "reload"), "--state-dir", "state", cwd=home)
    assert ended.code == 3
    assert "no daemon" in ended.err
    assert "state/daemon.sock" in ended.err
    assert "--daemon" in ended.err
    assert not (home / "state").exists()


def test_once_runs_what_is_scheduled_and_its_exit_code_says_how_it_went(api: OrdersApi, home: Path) -> None:
    write(home, SYNC, api)
    write(home, RESTING.replace("schedule: every 1 hour", ""), api, "unscheduled.vague")
    ended = reqon("missions", "--once", "--state-dir", "state", cwd=home)
    assert ended.code == 0, ended.text
    assert [r["mission"] for r in ask(home, "history")] == ["Sync"]
    assert len(decode(stores(home)["towns.json"])) == CUSTOMERS
    api.fail(500, "/customers", times=10**6)
    failed = reqon(
        "missions",
        "--once",
        "--state-dir",
        "state",
        "--alert-on-failure",
        "--alert-url",
        f"{api.url}/_alerts",
        cwd=home,
    )
    assert failed.code == 1, failed.text
    assert [a["labels"]["mission"] for a in alerts(api, "firing")] == ["Sync"]


def test_once_says_3_when_configuration_stopped_a_run(home: Path) -> None:
    (home / "missions").mkdir(exist_ok=True)
    (home / "missions" / "m.vague").write_text(
        'mission M { schedule: every 1 hour, source S { auth: bearer, base: "http://127.0.0.1:1" }'
        ' action A { get "/x" } run A }'
    )
    ended = reqon("missions", "--once", "--state-dir", "state", cwd=home)
    assert ended.code == 3, ended.text
    assert "REQON_S_TOKEN" in ended.err


def test_a_failed_run_is_told_on_the_log_when_nobody_else_is_named(api: OrdersApi, home: Path) -> None:
    write(home, SYNC, api)
    api.fail(500, "/customers", times=10**6)
    with Daemon(home, "--alert-on-failure") as daemon:
        daemon.ready().until(lambda d: '"level":"error"' in d.err and "Sync" in d.err, "told")
        assert any("--alert-url" in line for line in daemon.err.splitlines())


def test_a_one_shot_run_beside_the_daemon_leaves_its_mission_alone(api: OrdersApi, home: Path) -> None:
    mission = write(home, RESTING, api)
    with Daemon(home) as daemon:
        daemon.ready()
        api.hold("/orders")
        ask(home, "trigger", "Resting")
        assert api.reached.wait(60)
        beside = reqon(mission, "--state-dir", "state", cwd=home)
        assert beside.code == 0, beside.text
        assert f"pid {daemon.process.pid}" in beside.err
        api.release()
        daemon.line("run ended", mission="Resting", outcome="success")
        assert reqon(mission, "--state-dir", "state", cwd=home).code == 0


def test_options_come_from_the_environment_and_from_reqon_toml(api: OrdersApi, home: Path) -> None:
    write(home, RESTING, api)
    (home / "missions" / "reqon.toml").write_text(
        'metrics-port = 0\n[alerts]\nurls = ["http://127.0.0.1:9/x?token=t0p"]\n'
    )
    with Daemon(home, REQON_SHUTDOWN_GRACE="2s") as daemon:
        assert daemon.ready().metric("reqon_missions_loaded", state="active") == 1
    shown = reqon("config", "missions", cwd=home, REQON_SHUTDOWN_GRACE="2s")
    assert shown.code == 0, shown.text
    assert "REQON_SHUTDOWN_GRACE" in shown.out
    assert "reqon.toml" in shown.out
    assert "t0p" not in shown.text
    wrong = reqon("missions", "--daemon", "--shutdown-grace", "soon", cwd=home)
    assert wrong.code == 3
    assert "--shutdown-grace" in wrong.err
