"""The daemon as a real process: starting, serving, reloading, stopping, coming back."""

import http.client
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import parser

from reqon.clock import SYSTEM
from reqon.errors import ConfigurationError
from reqon.values import decode
from reqon_daemon.incidents import Kind, summary
from tests.support.daemon_process import ROOT, DaemonProcess
from tests.support.orders_api import OrdersApi
from tests.support.peers import needs
from tests.support.processes import environment, reqon

COUNTING = """
mission Counting {
  schedule: every 1 second { runImmediately: true }
  store out: file("counted")
  let items = [{ id: "a" }, { id: "b" }]
  action Load { for item in items { store item -> out { key: .id } } }
  run Load
}
"""
RESTING = """
mission Resting {
  schedule: every 1 hour
  store out: file("rested")
  let items = [{ id: "a" }]
  action Load { for item in items { store item -> out { key: .id } } }
  run Load
}
"""


def fetching(url: str, *, name: str = "Fetching", when: str = "every 1 hour { runImmediately: true }") -> str:
    return f"""
mission {name} {{
  schedule: {when}
  source Shop {{ auth: none, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store customers: file("customers")
  action Load {{
    get "/customers" {{ params: {{ per_page: 50 }}, paginate: page(page, 50), until: response.page >= response.pages }}
    for customer in response.customers {{ store customer -> customers {{ key: .id }} }}
  }}
  run Load
}}
"""


@pytest.fixture
def missions(tmp_path: Path) -> Path:
    folder = tmp_path / "missions"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_scheduled_mission_runs_and_is_seen(missions: Path, state: Path) -> None:
    (missions / "counting.vague").write_text(COUNTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready().said("run ended", mission="Counting", number=2)
        assert decode(daemon.get("/health")[1])["missionsLoaded"] == 1
        assert daemon.get("/livez")[0] == 200
        assert daemon.get("/readyz")[0] == 200
        samples = daemon.samples()
        assert samples['reqon_execution_items_processed{mission="Counting"}'] == 2
        assert samples['reqon_execution_errors_total{mission="Counting"}'] == 0
        assert samples['reqon_mission_runs_total{mission="Counting",status="success"}'] >= 2
        assert samples['reqon_schedule_slots_total{mission="Counting",outcome="fired"}'] >= 2
        assert samples['reqon_missions_loaded{state="active"}'] == 1
        assert samples["reqon_config_last_reload_successful"] == 1
        assert samples["reqon_scheduler_last_tick_timestamp_seconds"] > 0
        list(parser.text_string_to_metric_families(daemon.get("/metrics")[1].decode()))
        daemon.signal()
        assert daemon.wait() == 0


def test_a_daemon_whose_state_directory_went_is_not_alive(missions: Path, state: Path) -> None:
    """Whatever it wrote there would be lost, and a second daemon could start: whoever watches it restarts it."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        assert daemon.get("/livez")[0] == 200
        state.rename(state.with_name("moved"))
        status, body = daemon.get("/livez")
        assert (status, b"removed or replaced" in body) == (503, True)
        assert b"removed or replaced" in daemon.get("/health")[1]
        state.with_name("moved").rename(state)
        assert daemon.get("/livez")[0] == 200


def test_an_idle_daemon_stops_within_a_second(missions: Path, state: Path) -> None:
    """L1."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
        daemon.ready()
        began = SYSTEM.monotonic()
        daemon.signal()
        assert daemon.wait() == 0
        assert SYSTEM.monotonic() - began < 15  # no grace, no poll of half a minute; the rest is the machine's
        assert not (state / "daemon.sock").exists()


def test_the_past_is_shown_after_a_restart(missions: Path, state: Path) -> None:
    (missions / "counting.vague").write_text(COUNTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready().said("mission.complete")
        daemon.signal()
        assert daemon.wait() == 0
    (missions / "counting.vague").write_text(COUNTING.replace("1 second { runImmediately: true }", "1 hour"))
    with DaemonProcess(missions, state) as daemon:
        samples = daemon.ready().samples()
        assert samples['reqon_execution_items_processed{mission="Counting"}'] == 2
        assert samples['reqon_mission_last_run_success{mission="Counting"}'] == 1
        assert samples['reqon_mission_last_success_timestamp_seconds{mission="Counting"}'] > 0


def test_a_second_daemon_names_the_first_one(missions: Path, state: Path) -> None:
    """R6 in part: one pair, and a start right after SIGKILL."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as first:
        first.ready()
        with DaemonProcess(missions, state) as second:
            assert second.wait() == 3
            assert f"pid {first.process.pid}" in second.text
            assert "Traceback" not in second.text
        first.signal(signal.SIGKILL)
        first.wait()
        with DaemonProcess(missions, state) as third:
            third.ready()


def test_a_taken_port_ends_the_start_with_three(missions: Path, state: Path) -> None:
    """K2 in part: taken port."""
    (missions / "resting.vague").write_text(RESTING)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with DaemonProcess(missions, state, metrics_port=port) as daemon:
            assert daemon.wait() == 3
            assert f"127.0.0.1:{port} is taken" in daemon.text
            assert "Traceback" not in daemon.text


@pytest.mark.parametrize("kind", ["file", "missing"])
def test_what_cannot_be_used_is_said_in_one_line(missions: Path, state: Path, kind: str) -> None:
    """D7 in part: the state directory is a file."""
    if kind == "file":
        state.write_text("not a directory")
        folder = missions
        (missions / "resting.vague").write_text(RESTING)
    else:
        folder = missions / "nothing"
    with DaemonProcess(folder, state) as daemon:
        assert daemon.wait() == 3
        assert str(state if kind == "file" else folder) in daemon.text
        assert "Traceback" not in daemon.text


def test_one_broken_file_of_several_is_shown_and_the_others_run(missions: Path, state: Path) -> None:
    """H3 in part."""
    (missions / "counting.vague").write_text(COUNTING)
    (missions / "broken.vague").write_text("mission Broken { schedule: every }")
    with DaemonProcess(missions, state) as daemon:
        daemon.ready().said("mission.complete", mission="Counting")
        health = decode(daemon.get("/health")[1])
        assert health["status"] == "degraded"
        assert "broken.vague" in health["degraded"][0]
        assert daemon.samples()['reqon_missions_loaded{state="invalid"}'] == 1
        (missions / "broken.vague").unlink()
        for _ in range(100):
            if "degraded" not in decode(daemon.get("/health")[1]):
                break
            daemon.ask("reload")
        assert decode(daemon.get("/health")[1])["status"] == "ok"
        assert daemon.samples()["reqon_config_last_reload_successful"] == 1


def test_a_broken_edit_keeps_the_last_good_version_until_it_is_mended(missions: Path, state: Path) -> None:
    """H1 in part: without a run in flight."""
    file = missions / "counting.vague"
    file.write_text(COUNTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready().said("mission.complete", mission="Counting")
        file.write_text(COUNTING.replace("action Load", "action"))
        daemon.said("mission file refused")
        seen = sum(line.get("message") == "mission.complete" for line in daemon.lines)
        daemon.said("mission.complete", number=seen + 1)
        assert decode(daemon.get("/health")[1])["status"] == "degraded"
        file.write_text(COUNTING.replace('{ id: "b" }', '{ id: "b" }, { id: "c" }'))
        daemon.said("mission changed", mission="Counting")
        daemon.said("mission file mended")
        assert decode(daemon.get("/health")[1])["status"] == "ok"
        daemon.said("mission.complete", itemsProcessed=3)


def test_missions_come_and_go_with_their_series(missions: Path, state: Path) -> None:
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        (missions / "counting.vague").write_text(COUNTING)
        daemon.said("mission added", mission="Counting")
        daemon.said("mission.complete", mission="Counting")
        (missions / "counting.vague").unlink()
        daemon.said("mission removed", mission="Counting")
        assert 'mission="Counting"' not in daemon.get("/metrics")[1].decode()


def test_the_control_socket_triggers_pauses_and_tells(missions: Path, state: Path) -> None:
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        assert daemon.ask("trigger", mission="Resting")["state"] == "started"
        daemon.said("run ended", mission="Resting")
        daemon.ask("pause", mission="Resting", seconds=60, reason="maintenance")
        assert daemon.samples()['reqon_mission_paused{mission="Resting"}'] == 1
        status = daemon.ask("status")
        assert status["missions"][0]["state"] == "paused"
        assert (status["pid"], status["phase"]) == (daemon.process.pid, "ready")
        assert daemon.ask("unpause", mission="Resting")["wasPaused"]
        with pytest.raises(ConfigurationError, match="Nothing"):
            daemon.ask("trigger", mission="Nothing")
    with pytest.raises(ConfigurationError, match="no daemon"):
        daemon.ask("status")


def test_a_run_cut_off_by_sigterm_is_saved_and_resumed(missions: Path, state: Path) -> None:
    """L2 in part: one stop in mid-run."""
    with OrdersApi() as api:
        (missions / "fetching.vague").write_text(fetching(api.url))
        api.hold("/customers", at=3)
        with DaemonProcess(missions, state, shutdown_grace="1s") as daemon:
            daemon.ready()
            assert api.reached.wait(60)
            daemon.signal()
            assert daemon.wait(8) == 0
        (record,) = (state / "execution").glob("*.json")
        assert decode(record.read_bytes())["status"] == "interrupted"
        api.release()
        with DaemonProcess(missions, state) as daemon:
            daemon.ready().said("run ended", mission="Fetching", outcome="success")
            assert daemon.samples()['reqon_resumes_total{mission="Fetching",outcome="success"}'] == 1
        assert decode(record.read_bytes())["status"] == "completed"
        assert len(decode((state / "stores" / "customers.json").read_bytes())) == len(api.customers())


def test_a_run_lost_with_its_process_is_resumed_and_told(missions: Path, state: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = tmp_path / "tell.sh"
    script.write_text(f"#!/bin/sh\ncat >> {told}\n")
    script.chmod(0o700)
    with OrdersApi() as api:
        (missions / "fetching.vague").write_text(fetching(api.url))
        api.hold("/customers", at=3)
        options = {"alert_on_failure": True, "alert_urls": f"exec:{script}"}
        with DaemonProcess(missions, state, **options) as daemon:
            daemon.ready()
            assert api.reached.wait(60)
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        api.release()
        with DaemonProcess(missions, state, **options) as daemon:
            daemon.ready().said("an execution was lost with its process")
            daemon.said("mission.complete", mission="Fetching")
            daemon.said("alert delivered", status="resolved")
            daemon.signal()
            assert daemon.wait() == 0
    states = [decode(line)["status"] for line in told.read_text().splitlines()]
    assert states == ["firing", "resolved"]


def test_a_failed_run_is_told_on_the_log_without_a_target(missions: Path, state: Path) -> None:
    with OrdersApi() as api:
        api.fail(500, "/customers", times=9)
        (missions / "fetching.vague").write_text(fetching(api.url))
        with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
            daemon.said("alerts have no target and go to this log")
            daemon.ready().said("run ended", mission="Fetching", outcome="failure")
            daemon.said("alert delivered", status="firing")
            assert any(line["message"].startswith("alert firing: Fetching failed") for line in daemon.lines)
            assert daemon.samples()['reqon_alert_active{kind="failed",mission="Fetching"}'] == 1
            assert daemon.samples()['reqon_execution_errors_total{mission="Fetching"}'] >= 1


def test_the_second_signal_ends_at_once(missions: Path, state: Path) -> None:
    """L4 in part: second signal."""
    with OrdersApi() as api:
        (missions / "fetching.vague").write_text(fetching(api.url))
        api.hold("/customers", at=2)
        with DaemonProcess(missions, state) as daemon:
            daemon.ready()
            assert api.reached.wait(60)
            daemon.signal()
            daemon.said("stopping")
            assert daemon.get("/readyz")[0] == 503
            began = SYSTEM.monotonic()
            daemon.signal(signal.SIGINT)
            assert daemon.wait() == 128 + signal.SIGINT
            assert SYSTEM.monotonic() - began < 15  # not the grace of 30 s


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
def test_a_signal_while_it_starts_ends_it_cleanly(missions: Path, state: Path, moment: float) -> None:
    """L4 in part: signals at moments of the start."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        try:
            daemon.process.wait(moment)
        except subprocess.TimeoutExpired:
            daemon.signal()
        # Before our handler is there, the interpreter's own default ends the process: nothing was begun by then.
        assert daemon.wait(60) in (0, -signal.SIGTERM)
        assert "Traceback" not in daemon.text
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()


def test_sighup_reloads(missions: Path, state: Path) -> None:
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state, reload_poll="60s") as daemon:
        daemon.ready()
        before = daemon.samples()["reqon_config_last_reload_success_timestamp_seconds"]
        daemon.signal(signal.SIGHUP)
        for _ in range(300):
            if daemon.samples()["reqon_config_last_reload_success_timestamp_seconds"] > before:
                break
            time.sleep(0.1)
        assert daemon.samples()["reqon_config_last_reload_success_timestamp_seconds"] > before
        assert daemon.process.poll() is None


def test_metrics_answer_while_a_mission_computes(missions: Path, state: Path) -> None:
    """K4: every answer comes while the run goes on; benchmarks/daemon.py says how fast."""
    (missions / "busy.vague").write_text("""
mission Busy {
  schedule: every 1 hour { runImmediately: true }
  store out: memory("out")
  let ten = split("0,1,2,3,4,5,6,7,8,9", ",")
  action Work {
    for a in ten { for b in ten { for c in ten { for d in ten { for e in ten { for f in ten { for g in ten {
      store { id: concat(a, b, c, d) } -> out { key: .id }
    } } } } } } }
  }
  run Work
}
""")
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        daemon.said("mission.start", mission="Busy")
        for _ in range(60):
            status, body = daemon.get("/metrics")
            assert status == 200
            assert body
        assert daemon.samples()['reqon_mission_running{mission="Busy"}'] == 1


def test_once_runs_every_scheduled_mission_and_answers_by_its_exit_code(missions: Path, state: Path) -> None:
    (missions / "counting.vague").write_text(COUNTING)
    (missions / "resting.vague").write_text(RESTING)
    (missions / "unscheduled.vague").write_text(
        RESTING.replace("Resting", "Unscheduled").replace("schedule: every 1 hour", "")
    )
    with DaemonProcess(missions, state, once=True) as daemon:
        assert daemon.wait() == 0
        done = {line["mission"] for line in daemon.lines if line.get("message") == "mission.complete"}
        assert done == {"Counting", "Resting"}
    with OrdersApi() as api:
        api.fail(500, "/customers", times=9)
        (missions / "fetching.vague").write_text(fetching(api.url))
        with DaemonProcess(missions, state, once=True, alert_on_failure=True) as daemon:
            assert daemon.wait() == 1
            assert any(line.get("message") == "alert delivered" for line in daemon.lines)


def test_once_refuses_to_start_anything_with_a_broken_file(missions: Path, state: Path) -> None:
    (missions / "counting.vague").write_text(COUNTING)
    (missions / "broken.vague").write_text("mission Broken {")
    with DaemonProcess(missions, state, once=True) as daemon:
        assert daemon.wait() == 2
        assert "broken.vague" in daemon.text
        assert "mission.start" not in daemon.text
    with DaemonProcess(missions, state, once=True, keep_going=True) as daemon:
        assert daemon.wait() == 2  # though the others succeeded
        assert "mission.complete" in daemon.text


def test_what_it_makes_is_for_its_user_alone(missions: Path, state: Path) -> None:
    """K2 in part: modes under umask 000."""
    (missions / "counting.vague").write_text(COUNTING)
    before = os.umask(0)
    try:
        with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
            daemon.ready().said("mission.complete")
            wide = [
                path
                for path in (state, *state.rglob("*"))
                if path.lstat().st_mode & (0o077 if not path.is_symlink() else 0)
            ]
            assert wide == []
            daemon.signal()
            assert daemon.wait() == 0
    finally:
        os.umask(before)


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_what_a_run_by_hand_makes_is_for_its_user_alone(store: str, missions: Path, tmp_path: Path) -> None:
    """K2: modes under umask 000, of a run that fails in mid-loop and of one that writes its stores out."""
    failing = 'for n in [1, 2, 3] { store { id: n } -> out match n { 3 -> abort "enough", _ -> continue } }'
    places = ["--state-dir", "state", "--output", "written"]
    for name, body, code in (("Good", "store { id: 1 } -> out", 0), ("Bad", failing, 1)):
        text = f'mission {name} {{ store out: file("out") action A {{ {body} }} run A }}'
        (missions / "one.vague").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "reqon", str(missions), "--state-store", store, *places],
            cwd=tmp_path,
            env=environment({}),
            umask=0,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
    found = [path for folder in ("state", "written") for path in (tmp_path / folder, *(tmp_path / folder).rglob("*"))]
    assert len(found) > 10
    assert [path for path in found if path.lstat().st_mode & 0o077] == []


def test_the_service_is_found_by_its_entry_point() -> None:
    code = "from reqon_daemon.__main__ import serve; import sys; sys.exit(serve({'metrics_port': 'x'}))"
    path = f"{ROOT}:{ROOT / 'daemon'}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 3
    assert b"--metrics-port: 'x' cannot be used" in done.stderr


def test_a_mission_that_ends_its_process_is_given_up_after_three_resumes(missions: Path, state: Path) -> None:
    """R5: the daemon is started anew each time: given up after three resumes, one alert, and the others run."""
    told: list[str] = []
    with OrdersApi() as api:
        (missions / "fetching.vague").write_text(fetching(api.url))
        (missions / "resting.vague").write_text(RESTING)
        for life in range(7):
            api.hold("/customers", at=1)
            with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
                if life < 4:  # the run, and three resumes: each ends its process at its first request
                    assert api.reached.wait(60)
                else:
                    daemon.ready()
                assert daemon.ask("trigger", mission="Resting")["state"] == "started"
                daemon.said("run ended", mission="Resting", outcome="success")
                if life == 4:
                    daemon.said("resume gave up", mission="Fetching")
                    daemon.said_alert("Fetching", "resume gave up")
                daemon.signal(signal.SIGKILL)
                daemon.wait()
                told += [line["alert_id"] for line in daemon.alerts("Fetching") if "gave up" in str(line)]
            assert not api.reached.is_set() or life < 4
            api.release()
            api.reached.clear()
        (record,) = (state / "execution").glob("Fetching*.json")
        kept = decode(record.read_bytes())
        assert (kept["status"], kept["attempt"]) == ("failed", 4)
        assert kept["errors"][-1]["message"].startswith("resume gave up")
        assert len(told) == 1


def test_it_listens_for_this_machine_alone_unless_told_otherwise(missions: Path, state: Path) -> None:
    """K2: binding defaults."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        line = daemon.ready().said("listening", purpose="metrics")
        assert line["url"] == f"http://127.0.0.1:{daemon.port}"
        assert "this machine only" in line["reachable_from"]
        assert not any(line.get("purpose") == "webhook" for line in daemon.lines)
        assert stat.S_ISSOCK((state / "daemon.sock").stat().st_mode)
        assert stat.S_IMODE((state / "daemon.sock").stat().st_mode) == 0o600
    with DaemonProcess(missions, state, metrics_host="0.0.0.0") as daemon:
        assert daemon.ready().said("listening", purpose="metrics")["reachable_from"] == "other machines too"
        assert daemon.get("/livez")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRIGGER"])
def test_no_route_of_the_port_changes_anything(missions: Path, state: Path, method: str) -> None:
    """K2: no mutating route, whatever it is called."""
    (missions / "resting.vague").write_text(RESTING)
    with DaemonProcess(missions, state) as daemon:
        daemon.ready()
        for path in ("/metrics", "/health", "/-/reload", "/reload", "/trigger", "/missions/Resting/trigger", "/-/quit"):
            client = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
            client.request(method, path, body=b"{}")
            assert client.getresponse().status == 405
            client.close()
            assert daemon.get(path)[0] in (200, 404)
        assert daemon.ask("status")["running"] == 0
        assert daemon.process.poll() is None
        assert not list((state / "execution").glob("*.json"))


def test_as_process_1_it_collects_what_nobody_waits_for(missions: Path, state: Path, tmp_path: Path) -> None:
    """L5: no zombies. The command for alerts leaves a process behind, which then belongs to process 1."""
    unshare = needs("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root: a process namespace")
    told = tmp_path / "told"
    script = tmp_path / "tell.sh"
    script.write_text(f"#!/bin/sh\ncat > /dev/null\nsetsid sleep 0.2 &\necho $! >> {told}\n")
    script.chmod(0o700)
    (missions / "broken.vague").write_text("mission Broken {")
    variables = environment(
        {
            "REQON_STATE_DIR": str(state),
            "REQON_LOG_FORMAT": "json",
            "REQON_ALERT_ON_FAILURE": "true",
            "REQON_ALERT_URLS": f"exec:{script}",
        }
    )
    command = [unshare, "--pid", "--fork", "--mount-proc", sys.executable, "-m", "reqon_daemon", str(missions)]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stderr is not None
        next(line for line in outer.stderr if '"message":"alert delivered"' in line)
        (inner,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        left: list[str] = ["?"]
        for _ in range(300):
            left = [p for p in Path(f"/proc/{inner}/task/{inner}/children").read_text().split() if told.exists()]
            if told.exists() and not left:
                break
            time.sleep(0.1)
        os.kill(int(inner), signal.SIGTERM)
        outer.stderr.read()
        assert outer.wait(60) == 0
    assert told.read_text().split()
    assert left == []


@pytest.mark.parametrize("kind", ["timeout", "stuck"])
def test_a_run_over_its_time_says_so_where_it_was_and_what_to_do(missions: Path, state: Path, kind: str) -> None:
    option = {"timeout": "timeout", "stuck": "stuckAfter"}[kind]
    with OrdersApi() as api:
        text = fetching(api.url, when="every 1 hour { runImmediately: true }")
        (missions / "m.vague").write_text(text.replace("  source", f"  {option}: 2 seconds\n  source"))
        api.hold("/customers", at=2)
        with DaemonProcess(missions, state, alert_on_failure=True) as daemon:
            daemon.ready().said("run ended", mission="Fetching", outcome="failure")
            alert = daemon.said(f"alert firing: {summary('Fetching', Kind(kind))}")
            assert (alert["kind"], alert["action"]) == (kind, "Load")
            assert f"a longer {option}" in alert["hint"]
            assert "--resume --execution" in alert["resume"]
            (path,) = (state / "execution").glob("*.json")
            record = decode(path.read_bytes())
            assert record["status"] == "failed"
            (error,) = record["errors"]
            assert (error["type"], error["action"]) == (kind, "Load")
            assert error["message"].startswith("stopped: ")
            assert record["activeStep"]["action"] == "Load"
        api.release()


def test_status_beside_a_daemon_shows_what_never_ran_and_what_is_broken(missions: Path, state: Path) -> None:
    (missions / "counting.vague").write_text(COUNTING)
    (missions / "resting.vague").write_text(RESTING)
    (missions / "broken.vague").write_text("mission Broken {")
    with DaemonProcess(missions, state) as daemon:
        daemon.ready().said("run ended", mission="Counting")
        line = daemon.said("mission file refused")
        assert line["hint"] == f"reqon check {missions / 'broken.vague'} shows all of them"
        told = reqon("status", "--state-dir", state, cwd=missions)
        assert told.code == 0
        assert "Counting" in told.out
        assert "Resting has not run yet; next run 2" in told.out
        assert f"degraded: {missions / 'broken.vague'}:1:" in told.out
        assert isinstance(decode(reqon("status", "--json", "--state-dir", state, cwd=missions).out.encode()), list)


def test_a_daemon_writes_where_the_store_configuration_says(missions: Path, state: Path, tmp_path: Path) -> None:
    """Also after a reload, which reads the configuration again."""
    configuration = tmp_path / "stores.json"
    configuration.write_text(f'{{"sql": {{"type": "sqlite", "url": "sqlite:///{tmp_path}/first.db"}}}}')
    (missions / "m.vague").write_text(COUNTING.replace('file("counted")', 'sql("counted")'))
    with DaemonProcess(missions, state, store_config=configuration) as daemon:
        daemon.ready().said("run ended", mission="Counting", outcome="success")
        assert _rows(tmp_path / "first.db") == 2
        configuration.write_text(configuration.read_text().replace("first.db", "second.db"))
        daemon.ask("reload")
        for _ in range(300):
            if (tmp_path / "second.db").exists() and _rows(tmp_path / "second.db") == 2:
                break
            time.sleep(0.1)
        assert _rows(tmp_path / "second.db") == 2
        daemon.signal()
        assert daemon.wait() == 0


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return max((database.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables), default=0)


def test_as_process_1_of_a_container_it_stops_when_told(missions: Path, state: Path) -> None:
    """L5: pid 1, for which the kernel has no default handlers: a signal without one of ours would be lost."""
    unshare = needs("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root: a process namespace")
    (missions / "counting.vague").write_text(COUNTING)
    variables = environment({"REQON_STATE_DIR": str(state), "REQON_LOG_FORMAT": "json"})
    command = [unshare, "--pid", "--fork", sys.executable, "-m", "reqon_daemon", str(missions)]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as outer:
        assert outer.stderr is not None
        ready = next(line for line in outer.stderr if '"message":"ready"' in line)
        assert decode(ready.encode())["pid"] == 1
        (inner,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGTERM)
        said = outer.stderr.read()
        assert outer.wait(60) == 0
    assert '"message":"stopped"' in said
    assert "Traceback" not in said
